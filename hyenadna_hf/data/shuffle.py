"""Shuffle sequences while preserving their short-range composition."""

import random
from collections import defaultdict
from itertools import pairwise


def dinucleotide_shuffle(sequence: str, rng: random.Random) -> str:
    """
    Shuffle a sequence while preserving its dinucleotide counts, and so its base counts, and its first and last letter.

    All such sequences are equally likely: letters are the nodes of a graph with an edge for each dinucleotide, and the
    result is a random Eulerian walk through it (Altschul & Erickson 1985).

    Args:
        sequence: Any letters; case matters.
        rng: Random number generator.

    Returns:
        A string of the same length.
    """
    followers = defaultdict(list)
    for letter, following in pairwise(sequence):
        followers[letter].append(following)
    end = sequence[-1:]
    while True:
        last = {letter: rng.choice(choices) for letter, choices in followers.items() if letter != end}
        if all(_leads_to(end, letter, last) for letter in last):
            break
    for letter, choices in followers.items():
        if letter in last:  # the edge by which the walk leaves a letter for the last time
            choices.remove(last[letter])
        rng.shuffle(choices)
        if letter in last:
            choices.append(last[letter])
    walks = {letter: iter(choices) for letter, choices in followers.items()}
    shuffled = [sequence[:1]]
    for _ in range(len(sequence) - 1):
        shuffled.append(next(walks[shuffled[-1]]))
    return "".join(shuffled)


def _leads_to(end: str, letter: str, last: dict[str, str]) -> bool:
    visited = set()
    while letter != end and letter not in visited:
        visited.add(letter)
        letter = last[letter]
    return letter == end
