"""Find sequences that splits share: duplicates, reverse complements, near duplicates, overlapping intervals."""

import warnings
from collections.abc import Iterator
from hashlib import blake2b
from itertools import combinations

import numpy as np
import pandas as pd
from datasets import DatasetDict, concatenate_datasets
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError
from ..jobs import progress
from .fasta import bare_name
from .files import INTERVAL_COLUMNS
from .sequence import BASES, NUCLEOTIDE_IDS, normalise, reverse_complement, token_ids

K = 16  # a k-mer takes 32 bits, and one 64-bit integer holds it with the number of its sequence
CONTAINMENT = 0.5
KINDS = {
    "exact": "exact duplicates",
    "reverse_complement": "reverse complements",
    "near_duplicate": "near duplicates",
    "overlapping": "overlapping intervals",
}

# Bounds of the memory: bases in an index (8 bytes each, twice while it is sorted), and bases or pairs in a batch.
INDEX_SIZE = 2**25
BATCH_SIZE = 2**21

SEQUENCE = np.uint64(2**32 - 1)  # mask of the number of the sequence


class DistinctSequences:
    """
    The distinct sequences of several splits.

    Two sequences are equal if one is the other or its reverse complement; U equals T, and case is ignored. A sequence
    is a near duplicate of another if at least half (`CONTAINMENT`) of its distinct k-mers (16 bases, `K`) occur in the
    other, on either strand. This corresponds to an overlap of one half, or to substitutions in about 4 % of the bases.
    k-mers with N or another ambiguous code are ignored, and repeated k-mers count once. Sequences with fewer than 16
    distinct k-mers (shorter than 31 bases, mostly N, or tandem repeats) are never near duplicates, but are compared as
    a whole.

    Args:
        data: Data set with a column `sequence`, and optionally `region`, `start` and `end` (0-based, half-open).

    Attributes:
        splits: The number of the distinct sequence of each row, by split.
    """

    def __init__(self, data: DatasetDict) -> None:
        self._intervals = _intervals(data)
        self._rows = concatenate_datasets(
            [split.with_format(None).select_columns("sequence") for split in data.values()]
        )
        keys, strands, lengths = [], [], []
        for batch in self._rows.iter(1000):
            for sequence in batch["sequence"]:
                sequence = normalise(sequence)
                other = reverse_complement(sequence)
                keys.append(blake2b(min(sequence, other).encode(), digest_size=16).digest())
                strands.append(sequence > other)
                lengths.append(len(sequence))
        numbers = pd.factorize(np.array(keys, object))[0]
        self._first_rows = np.unique(numbers, return_index=True)[1]
        self._lengths = np.array(lengths)[self._first_rows]
        ends = np.cumsum([len(split) for split in data.values()])[:-1]
        self.splits = dict(zip(data, np.split(numbers, ends)))
        self._strands = dict(zip(data, np.split(np.array(strands, bool), ends)))

    def duplicates(self) -> dict[str, dict[str, int]]:
        """
        Count the sequences of each split that occur earlier in the same split.

        Returns:
            For each split, `duplicates` on either strand, and `reverse_complements`, those among them that occur
            earlier only as reverse complement.
        """
        counts = {}
        for name, numbers in self.splits.items():
            same_strand = pd.Series(2 * numbers + self._strands[name]).duplicated().sum()
            either = pd.Series(numbers).duplicated().sum()
            counts[name] = {"duplicates": int(either), "reverse_complements": int(either - same_strand)}
        return counts

    def leakage(self) -> dict[tuple[str, str], dict[str, int | None]]:
        """
        Count the sequences of one split that another contains, for each pair of splits.

        Returns:
            For each pair, how many sequences of the second split are in the first unchanged (`exact`), only as reverse
            complement (`reverse_complement`), or only as near duplicate (`near_duplicate`), and how many intervals of
            the second overlap one of the first (`overlapping`; `None` without coordinates).
        """
        counts: dict[tuple[str, str], dict[str, int | None]] = {}
        for first, second in combinations(self.splits, 2):
            searched, reference = self.splits[second], self.splits[first]
            either = np.isin(searched, reference)
            exact = np.isin(2 * searched + self._strands[second], 2 * reference + self._strands[first])
            counts[first, second] = {
                "exact": int(exact.sum()),
                "reverse_complement": int(either.sum() - exact.sum()),
                "near_duplicate": 0,
                "overlapping": _overlapping(self._intervals, first, second),
            }
        for first in list(self.splits)[:-1]:
            seconds = [second for other, second in counts if other == first]
            absent = np.setdiff1d(np.concatenate([self.splits[second] for second in seconds]), self.splits[first])
            near_duplicates = absent[self._has_near_duplicate(absent, np.unique(self.splits[first]))]
            for second in seconds:
                counts[first, second]["near_duplicate"] = int(np.isin(self.splits[second], near_duplicates).sum())
        return counts

    def groups(self) -> np.ndarray:
        """
        Group all rows so that no near duplicates or overlapping intervals are in different groups.

        Returns:
            The number of the group of each row of all splits in order, shape `(rows,)`.
        """
        numbers = np.concatenate(list(self.splits.values()))
        all_numbers = np.arange(len(self._first_rows))
        first, second = _neighbours(self._intervals)
        groups = _join_groups(all_numbers, numbers[first], numbers[second])
        for first, second in self._candidates(all_numbers, all_numbers):
            is_open = groups[first] != groups[second]
            first, second = first[is_open], second[is_open]
            is_near = self._are_near_duplicates(first, second)
            groups = _join_groups(groups, first[is_near], second[is_near])
        return groups[numbers]

    def _has_near_duplicate(self, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
        has_duplicate: np.ndarray = np.zeros(len(self._first_rows), bool)
        for first, second in self._candidates(queries, others):
            is_open = ~has_duplicate[first]
            first, second = first[is_open], second[is_open]
            has_duplicate[first[self._are_near_duplicates(first, second)]] = True
        return has_duplicate[queries]

    def _candidates(self, queries: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of pairs of sequences that include all near duplicates."""
        blocks = _split_by_size(others, self._lengths[others], INDEX_SIZE)
        pieces = _split_by_size(queries, self._lengths[queries], BATCH_SIZE)
        with progress("bases compared", int(len(blocks) * self._lengths[queries].sum())) as advance:
            for block in blocks:
                index = self._index(block)
                for piece in pieces if len(index) else ():
                    kmers = _kmers(self._sequences(piece), piece)
                    yield from _candidates(kmers, piece, np.isin(piece, block), index)
                    advance(int(self._lengths[piece].sum()))
                del index  # before the next one is built

    def _index(self, numbers: np.ndarray) -> np.ndarray:
        parts = _split_by_size(numbers, self._lengths[numbers], BATCH_SIZE)
        index = np.concatenate([_kmers(self._sequences(part), part) for part in parts])
        index.sort()
        return index

    def _are_near_duplicates(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return whether each of `first` is a near duplicate of its partner in `second`."""
        is_near: np.ndarray = np.zeros(len(first), bool)
        for pairs in _split_by_size(np.arange(len(first)), self._lengths[first] + self._lengths[second], BATCH_SIZE):
            first_kmers = _kmers(self._sequences(first[pairs]), np.arange(len(pairs)))
            second_kmers = _kmers(self._sequences(second[pairs]), np.arange(len(pairs)))
            shared = _count_kmers(np.intersect1d(first_kmers, second_kmers, assume_unique=True), len(pairs))
            is_near[pairs] = shared >= _needed_kmers(_count_kmers(first_kmers, len(pairs)))
        return is_near

    def _sequences(self, numbers: np.ndarray) -> list[str]:
        return self._rows[self._first_rows[numbers]]["sequence"]


def leakage_summary(data: DatasetDict) -> str | None:
    """
    Summarise in one line which splits share sequences.

    Args:
        data: See [`DistinctSequences`].

    Returns:
        The summary, or `None` if no two splits share anything.
    """
    parts = []
    for (first, second), counts in DistinctSequences(data).leakage().items():
        kinds = [f"{KINDS[kind]} {count:,}" for kind, count in counts.items() if count]
        if kinds:
            shared = sum(count or 0 for kind, count in counts.items() if kind != "overlapping")
            parts.append(f"{shared:,} of {len(data[second]):,} {second} sequences are in {first} ({', '.join(kinds)})")
    return f"Leakage: {'; '.join(parts)}." if parts else None


def split_by_similarity(
    data: DatasetDict, validation_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 42
) -> DatasetDict:
    """
    Split all sequences again, so that no near duplicates or overlapping intervals are in different splits.

    Sequences that are near duplicates, directly or through others, form a group, which is assigned to one split as a
    whole. Large groups are placed first, each in the split that brings the class counts closest to the requested ones.

    Args:
        data: See [`DistinctSequences`]; optionally with a column `label` (`ClassLabel`). All splits are merged.
        validation_fraction: Fraction of all sequences for validation.
        test_fraction: Fraction of all sequences for test.
        seed: Seed of the random choice among groups of the same size.

    Returns:
        A `DatasetDict` with splits `train`, `validation` and `test`. A fraction that is missed by more than 0.01 causes
        a warning.

    Raises:
        InputError: If a fraction or their sum is not between 0 and 1, a group is larger than every split, or a split,
            or a class of train, would be empty.
    """
    fractions = np.array([1 - validation_fraction - test_fraction, validation_fraction, test_fraction])
    if not (fractions > 0).all():
        raise InputError(
            f"validation_fraction={validation_fraction}, test_fraction={test_fraction}: give two numbers above 0 whose "
            "sum is below 1."
        )
    merged = concatenate_datasets(list(data.values()))
    has_classes = "label" in merged.column_names
    labels = np.asarray(merged["label"] if has_classes else np.zeros(len(merged), int))
    places = _place_groups(DistinctSequences(data).groups(), labels, fractions, np.random.default_rng(seed))
    actual = np.bincount(places, minlength=len(fractions)) / len(places)
    if not actual.all() or set(labels[places == 0]) < set(labels):
        raise InputError(
            f"validation_fraction={validation_fraction}, test_fraction={test_fraction}: the groups of near duplicates "
            "are too few or too large to fill every split and every class of train; add data or change the fractions."
        )
    names = ("train", "validation", "test")
    if np.abs(actual - fractions).max() > 0.01:
        shares = ", ".join(f"{share:.1%} {name}" for name, share in zip(names, actual))
        warnings.warn(f"Groups of near duplicates are not divided, so the splits are {shares}.", stacklevel=2)
    # In memory, because `datasets` would write the selection into the folder of a saved data set.
    rows = {name: np.flatnonzero(places == place) for place, name in enumerate(names)}
    return DatasetDict({name: merged.select(chosen, keep_in_memory=True) for name, chosen in rows.items()})


def _kmers(sequences: list[str], numbers: np.ndarray) -> np.ndarray:
    """
    List the distinct k-mers of each sequence, each as the smaller of its two strands.

    Args:
        sequences: Sequences of any characters; k-mers with characters other than A, C, G, T and U are skipped.
        numbers: Number to store for each sequence, shape `(len(sequences),)`.

    Returns:
        Sorted integers of type `uint64`, with the k-mer in the upper and the number of its sequence in the lower 32
        bits.
    """
    forward: np.ndarray = (token_ids("N".join(sequences)) - NUCLEOTIDE_IDS[0]).astype(np.uint32)
    is_base = forward < len(BASES)
    backward = np.uint32(len(BASES) - 1) - forward  # the complement, as BASES are in this order
    width = 1
    while width < K:
        forward = forward[:-width] << np.uint32(2 * width) | forward[width:]
        backward = backward[width:] << np.uint32(2 * width) | backward[:-width]
        is_base = is_base[:-width] & is_base[width:]
        width *= 2
    packed = np.minimum(forward, backward).astype(np.uint64) << np.uint64(32)
    packed |= np.repeat(numbers.astype(np.uint64), [len(sequence) + 1 for sequence in sequences])[: len(packed)]
    packed = packed[is_base]
    packed.sort()  # np.unique hashes since numpy 2.3, which takes five times as long
    is_new: np.ndarray = np.ones(len(packed), bool)
    is_new[1:] = packed[1:] != packed[:-1]
    return packed[is_new]


def _candidates(
    kmers: np.ndarray, queries: np.ndarray, is_indexed: np.ndarray, index: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Yield pairs of a query and a sequence of the index that include all near duplicates.

    A near duplicate has at least `needed` of the k-mers of a query, so it has at least `hits` of the
    `known - needed + hits` rarest among its `known` k-mers in the index. Only these are compared (prefix filter of
    similarity joins, Bayardo et al. 2007), so that common repeats are ignored.

    Args:
        kmers: k-mers of the queries, from [`_kmers`].
        queries: Numbers of the queries, sorted.
        is_indexed: Whether each query is one of the sequences of the index.
        index: k-mers of the other sequences, sorted.

    Yields:
        Numbers of queries and of sequences of the index, as two arrays.
    """
    query = np.asarray(np.searchsorted(queries, kmers & SEQUENCE))
    needed = _needed_kmers(np.bincount(query, minlength=len(queries)))
    start = np.asarray(np.searchsorted(index, kmers & ~SEQUENCE))
    offset = is_indexed[query]
    is_known = index.take(start + offset, mode="clip") >> np.uint64(32) == kmers >> np.uint64(32)  # in another sequence
    query, start = query[is_known], start[is_known]
    count = np.asarray(np.searchsorted(index, kmers[is_known] | SEQUENCE, side="right") - start)

    order = np.lexsort((count, query))
    query, start, count = query[order], start[order], count[order]
    totals = np.bincount(query, minlength=len(queries))
    hits: np.ndarray = 1 + needed // 4
    rank = np.arange(len(query)) - np.repeat(np.cumsum(totals) - totals, totals)
    is_rare = rank < np.where(totals >= needed, totals - needed + hits, 0)[query]
    query, start, count = query[is_rare], start[is_rare], count[is_rare]

    pair_counts = np.bincount(query, count, len(queries)).astype(int)  # of each query
    for piece in _split_by_size(np.arange(len(queries)), pair_counts, BATCH_SIZE):
        is_in_piece = (query >= piece[0]) & (query <= piece[-1])
        repeats = count[is_in_piece]
        place = np.arange(repeats.sum()) + np.repeat(start[is_in_piece] - (np.cumsum(repeats) - repeats), repeats)
        pairs = np.repeat(query[is_in_piece].astype(np.uint64), repeats) << np.uint64(32) | index[place] & SEQUENCE
        pairs, shared = np.unique(pairs, return_counts=True)
        first, second = (pairs >> np.uint64(32)).astype(int), (pairs & SEQUENCE).astype(int)
        is_candidate = (shared >= hits[first]) & (queries[first] != second)
        yield queries[first[is_candidate]], second[is_candidate]


def _needed_kmers(sizes: np.ndarray) -> np.ndarray:
    """Return how many k-mers a near duplicate must share; out of reach for fewer than `K` distinct k-mers."""
    return np.where(sizes < K, K, np.ceil(CONTAINMENT * sizes)).astype(int)


def _count_kmers(kmers: np.ndarray, sequences: int) -> np.ndarray:
    """Count the k-mers of each sequence."""
    return np.bincount((kmers & SEQUENCE).astype(int), minlength=sequences)


def _split_by_size(numbers: np.ndarray, sizes: np.ndarray, limit: int) -> list[np.ndarray]:
    """Split numbers into pieces of a total size of about `limit`; a larger item stays whole."""
    if not len(numbers):
        return []
    return np.split(numbers, np.flatnonzero(np.diff(np.cumsum(sizes) // limit)) + 1)


def _join_groups(groups: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Merge the groups that the pairs of sequences connect."""
    if not len(first):
        return groups
    count = len(groups)
    edges = coo_array((np.ones(len(first), bool), (groups[first], groups[second])), (count, count))
    return connected_components(edges, directed=False)[1][groups]


def _intervals(data: DatasetDict) -> pd.DataFrame | None:
    """Collect the intervals of all rows with their `split`; return `None` unless every split has coordinates."""
    if not all(set(INTERVAL_COLUMNS) <= set(split.column_names) for split in data.values()):
        return None
    parts = []
    for name, split in data.items():
        part = split.with_format(None).select_columns(list(INTERVAL_COLUMNS)).to_pandas()
        start, end = (pd.to_numeric(part[column], errors="coerce") for column in ("start", "end"))
        is_interval = (start >= 0) & (end > start) & (start % 1 == 0) & (end % 1 == 0)
        if not is_interval.all():
            row = is_interval.idxmin()
            region, *ends = (part[column][row] for column in INTERVAL_COLUMNS)
            raise InputError(
                f"{name}, row {row + 1:,}: {region}:{ends[0]}-{ends[1]} is not an interval; give whole numbers, start "
                "from 0 and end above it."
            )
        region = part["region"].astype(str).map(bare_name)
        parts.append(part.assign(region=region, start=start.astype(np.int64), end=end.astype(np.int64), split=name))
    return pd.concat(parts, ignore_index=True)


def _overlapping(intervals: pd.DataFrame | None, first: str, second: str) -> int | None:
    """Count the intervals of the second split that overlap one of the first."""
    if intervals is None:
        return None
    count = 0
    for _, region in intervals.groupby("region"):
        reference, searched = (region[region["split"] == split] for split in (first, second))
        begun = np.searchsorted(np.sort(reference["start"]), searched["end"])
        ended = np.searchsorted(np.sort(reference["end"]), searched["start"], side="right")
        count += int((begun > ended).sum())
    return count


def _neighbours(intervals: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of rows that connect all overlapping intervals."""
    if intervals is None:
        return np.zeros(0, int), np.zeros(0, int)
    ordered = intervals.sort_values(["region", "start"])
    furthest = ordered.groupby("region")["end"].cummax().groupby(ordered["region"]).shift()  # NaN at a region's first
    overlaps = (ordered["start"] < furthest).to_numpy()
    rows = ordered.index.to_numpy()
    return rows[np.flatnonzero(overlaps) - 1], rows[overlaps]


def _place_groups(
    groups: np.ndarray, labels: np.ndarray, fractions: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """
    Choose a split for each group.

    Args:
        groups: Group of each row, shape `(rows,)`.
        labels: Class of each row, shape `(rows,)`.
        fractions: Requested fraction of each split, shape `(splits,)`.
        rng: Random number generator.

    Returns:
        The number of the split of each row, shape `(rows,)`.
    """
    rows = len(groups)
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.max() > np.ceil(fractions.max() * rows):
        raise InputError(
            f"{sizes.max():,} of the {rows:,} sequences form one group of near duplicates, more than the "
            f"{fractions.max():.0%} of the largest split; lower validation_fraction={fractions[1]} and "
            f"test_fraction={fractions[2]} to a sum of {1 - sizes.max() / rows:.3f} or less, or remove duplicates."
        )
    names, labels = np.unique(labels, return_inverse=True)
    requested = fractions[:, None] * np.bincount(labels)
    places: np.ndarray = np.zeros(rows, int)
    placed = np.zeros_like(requested)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    for group in order[sizes[order] > 1]:
        classes = np.bincount(labels[members[group]], minlength=len(names))
        place = ((classes * (classes + 2 * (placed - requested))) / requested).sum(1).argmin()  # least squares
        places[members[group]] = place
        placed[place] += classes
    single = rng.permutation(np.flatnonzero(sizes[groups] == 1))
    for label in range(len(names)):
        singles = single[labels[single] == label]
        missing = np.maximum(requested[:, label] - placed[:, label], 0)
        shares = np.cumsum(missing)[:-1] / max(missing.sum(), 1e-9)
        for place, part in enumerate(np.split(singles, np.round(shares * len(singles)).astype(int))):
            places[part] = place
    return places
