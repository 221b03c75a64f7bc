"""Shuffled sequences: what is left of a sequence when all but its short-range composition is gone."""

import random
from collections import defaultdict
from itertools import pairwise


def dinucleotide_shuffle(sequence: str, rng: random.Random) -> str:
    """
    A random sequence with the same number of each dinucleotide, and so of each base, and the same two ends.

    All such sequences are equally likely: the letters are the nodes of a graph with an edge for each dinucleotide, and
    the result is a random Eulerian walk through it (Altschul & Erickson 1985).

    Args:
        sequence: Any letters; upper and lower case are different ones.
        rng: Source of chance.

    Returns:
        `str` of the same length.
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
        if letter in last:  # the edge by which the walk leaves a letter for good
            choices.remove(last[letter])
        rng.shuffle(choices)
        if letter in last:
            choices.append(last[letter])
    walks = {letter: iter(choices) for letter, choices in followers.items()}
    shuffled = [sequence[:1]]
    for _ in range(len(sequence) - 1):
        shuffled.append(next(walks[shuffled[-1]]))
    return "".join(shuffled)


def _leads_to(end: int, letter, last):
    visited = set()
    while letter != end and letter not in visited:
        visited.add(letter)
        letter = last[letter]
    return letter == end
