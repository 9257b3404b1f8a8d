"""Metrics of tags, one for each word of a sentence."""

from __future__ import annotations

import re
from itertools import chain

from xp.error import UserError
from xp.metric.base import Metric

MARK = re.compile(r"O|[BIESLUM](-.+)?")
"""A tag that says where entities are: IOB1, IOB2, IOBES, BILOU, BMES."""

SAME = {"L": "E", "U": "S", "M": "I"}
"""The letters of BILOU and BMES in those of IOBES."""


def entities(tags: list[str]) -> set[tuple[int, int, str]]:
    """The entities of a sentence as (first word, word after the last, kind).

    By the rules of the CoNLL-2000 shared task's evaluation (Tjong Kim Sang and Buchholz, 2000): an I or E goes on
    with the entity of the word before, if that is a B or I of the same kind; else it begins one.
    """
    found, start = set(), -1
    mark_before, kind_before = "O", ""
    for at, tag in enumerate([*tags, "O"]):
        letter, _, kind = tag.partition("-")
        mark = SAME.get(letter, letter)
        if not (mark in "IE" and mark_before in "BI" and kind == kind_before):
            if mark_before != "O":
                found.add((start, at, kind_before))
            start = at
        mark_before, kind_before = mark, kind
    return found


class Entity(Metric, name="entity"):
    """Precision, recall and F1 of whole entities: all words and the kind must be right.

    Over all entities together (micro), in [0, 1]; the values of seqeval's default mode (Nakayama, 2018), which are
    those of conlleval.
    """

    def score(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """``entity_f1``, ``entity_precision``, ``entity_recall``.

        Raises:
            UserError: the tags mark no entities, as parts of speech do not.
        """
        for tag in set(chain(chain.from_iterable(references), chain.from_iterable(predictions))):
            if not MARK.fullmatch(tag):
                raise UserError(
                    f"task.metrics=entity: the tag {tag!r} does not say where an entity begins (B-PER, I-PER, O); "
                    "choose word_accuracy or word_f1_macro"
                )
        right = predicted = gold = 0
        for guess, truth in zip(predictions, references, strict=True):
            if len(guess) != len(truth):
                raise ValueError(f"{len(guess)} tags for {len(truth)} words")
            guessed, true = entities(guess), entities(truth)
            right, predicted, gold = right + len(guessed & true), predicted + len(guessed), gold + len(true)
        return {
            "entity_f1": 2 * right / max(predicted + gold, 1),
            "entity_precision": right / max(predicted, 1),
            "entity_recall": right / max(gold, 1),
        }


class WordAccuracy(Metric, name="word_accuracy"):
    """Share of words whose tag is right."""

    def score(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """``word_accuracy``."""
        from sklearn.metrics import accuracy_score

        return {"word_accuracy": float(accuracy_score(*_words(references, predictions)))}


class WordF1Macro(Metric, name="word_f1_macro"):
    """F1 of each tag over the words, averaged over the tags that occur, ``O`` among them."""

    def score(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        """``word_f1_macro``."""
        from sklearn.metrics import f1_score

        macro = f1_score(*_words(references, predictions), average="macro", zero_division=0)
        return {"word_f1_macro": float(macro)}


def _words(*columns: list[list[str]]) -> list[list[int]]:
    """The tags of all words, as numbers."""
    for truth, guess in zip(*columns, strict=True):
        if len(truth) != len(guess):
            raise ValueError(f"{len(guess)} tags for {len(truth)} words")
    ids = {tag: number for number, tag in enumerate(sorted(set(chain(*columns[0], *columns[1]))))}
    return [[ids[tag] for tag in chain.from_iterable(column)] for column in columns]
