"""Tasks on texts that can only predict."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from xp.task.task import Hypothesis, Task


class FeatureExtraction(Task, name="feature_extraction"):
    """The network's last hidden states."""

    pipeline: ClassVar[str] = "feature-extraction"
    takes: ClassVar[str] = "a text"
    gives: ClassVar[str] = "a vector for each of its tokens, (1, tokens, width), as a .npy file"
    even: ClassVar[bool] = True
    spare: ClassVar[tuple[str, ...]] = ("pooler",)

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """A tensor, not a million numbers in lists."""
        return {"return_tensors": True}


class ZeroShotClassification(Task, name="zero_shot_classification"):
    """Labels of one's own, by a model that tells whether one sentence follows from another (Yin et al., 2019)."""

    pipeline: ClassVar[str] = "zero-shot-classification"
    takes: ClassVar[str] = "a text, and candidate_labels"
    gives: ClassVar[str] = "the labels with their scores, the likeliest first"
    inputs: ClassVar[tuple[str, ...]] = ("text", "candidate_labels")

    candidate_labels: list[str] | None
    """The labels to choose from, for inputs that name none of their own."""

    hypothesis_template: Hypothesis
    """The sentence that a label is put into, for ``{}``."""

    multi_label: bool
    """Whether several labels may be right at once: then each is scored by itself."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """The input's labels among them."""
        return self.options | {"candidate_labels": row["candidate_labels"]}

    def entry(self, row: dict[str, Any]) -> Any:
        """The text."""
        return row["text"]

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The text with the longest hypothesis."""
        return row["text"], max((self.hypothesis_template.format(label) for label in row["candidate_labels"]), key=len)


class TableQuestionAnswering(Task, name="table_question_answering"):
    """An answer out of a table's cells (Herzig et al., 2020), or written by a model that reads tables."""

    pipeline: ClassVar[str] = "table-question-answering"
    takes: ClassVar[str] = "a query, and a table: a csv file, or {column: [cells]}"
    gives: ClassVar[str] = "the answer with its cells"
    inputs: ClassVar[tuple[str, ...]] = ("query", "table")
    batches: ClassVar[bool] = False
    bf16: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    table: str | dict[str, list[str]] | None
    """The table, for inputs that are a query alone."""

    sequential: bool
    """Whether queries are answered one after the other, for models of conversations about a table."""

    truncation: Literal["drop_rows_to_fit", "do_not_truncate"]
    """What becomes of a table that is too long; do_not_truncate reports its input as failed."""

    def entry(self, row: dict[str, Any]) -> Any:
        """The query beside the table as a data frame of texts."""
        import pandas

        table = row["table"]
        if isinstance(table, str):
            table = pandas.read_csv(table, dtype=str, keep_default_na=False)
        return {"query": row["query"], "table": pandas.DataFrame(table).astype(str)}

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """The query; how long the table is, its tokenizer alone can tell."""
        return ()


class Decision(Task, name="decision"):
    """Answers to questions with fixed options, read off one forward pass."""

    pipeline: ClassVar[str] = "decision"
    takes: ClassVar[str] = "a state (a text or a mapping), and questions: {name: {...}}"
    gives: ClassVar[str] = "each question's answer with its probabilities"
    inputs: ClassVar[tuple[str, ...]] = ("state", "questions")
    optional_inputs: ClassVar[tuple[str, ...]] = ("assets",)
    batches: ClassVar[bool] = False

    questions: dict[str, Any] | None
    """The questions, for inputs that are a state alone."""

    def measured(self, row: dict[str, Any]) -> tuple[str, ...]:
        """Nothing: the template decides how long a prompt is."""
        return ()
