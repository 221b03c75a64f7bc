"""Ways to damage a file, for hypothesis."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# The former tries the same damage each time, the latter other damage.
QUICK = settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
THOROUGH = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))

# What breaks parsers: ends, signs, numbers beyond 32 and 64 bits, bytes that are no UTF-8, brackets.
TOKENS = [
    b"",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\t",
    b"\x00",
    b"\xff\xfe",
    b">",
    b"#",
    b'"',
    b",",
    b" ",
    b"-1",
    b"0",
    b"nan",
    b"1e9",
]
TOKENS += [
    b"2147483648",
    b"99999999999999999999",
    b".",
    b"*",
    b"<DEL>",
    b"[",
    b"{",
    b"null",
    "\u0660".encode(),
    b"\xef\xbb\xbf",
]


@st.composite
def damage(draw, content, tokens=TOKENS):
    """Bytes that are almost those of a file: flipped, cut, doubled, replaced, its lines in another order."""
    for _ in range(draw(st.integers(1, 4))):
        first, second = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        way = draw(st.sampled_from(("flip", "token", "field", "cut", "truncate", "double", "shuffle")))
        if way == "flip" and first < len(content):
            content = content[:first] + bytes([draw(st.integers(0, 255))]) + content[first + 1 :]
        elif way == "token":
            content = content[:first] + draw(st.sampled_from(tokens)) + content[first:]
        elif way == "field":
            content = _with_another_field(content, first, draw(st.sampled_from(tokens)))
        elif way == "cut":
            content = content[:first] + content[second:]
        elif way == "truncate":
            content = content[:second]
        elif way == "double":
            content = content[:second] + content[first:]
        elif way == "shuffle":
            lines = content.splitlines(keepends=True)
            order = draw(st.permutations(range(min(len(lines), 8))))
            content = b"".join([lines[i] for i in order] + lines[len(order) :])
    return content


@st.composite
def damage_packed(draw, content, pack):
    """The bytes of a packed file that was damaged before it was packed, or after, or both times."""
    before, after = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    packed = pack(draw(damage(content)) if before else content)
    return draw(damage(packed)) if after else packed


def _with_another_field(content, place, field):
    """With what stands between two separators around a place replaced."""
    separators = b"\t\n,:; "
    start = max(content.rfind(bytes([separator]), 0, place) for separator in separators) + 1
    ends = [end for separator in separators if (end := content.find(bytes([separator]), start)) >= 0]
    return content[:start] + field + content[min(ends, default=len(content)) :]
