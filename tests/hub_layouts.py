"""The hub data sets of conf/data in small: made-up rows in files, columns and types like those of the real ones."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import wave
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, DatasetInfo, Features, Image, List, SplitDict, SplitInfo, Translation, Value
from datasets import Sequence as Lists
from datasets.info import DatasetInfosDict
from hub import Hub
from huggingface_hub import DatasetCardData

TEXT, WHOLE = Value("string"), Value("int64")
WORDS = ["a", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "and", "naps"]
Rows = list[dict[str, Any]]
Splits = dict[str, Rows]


def words(at: int, number: int = 6) -> str:
    return " ".join(WORDS[(at * 3 + each * (1 + at % 4)) % len(WORDS)] for each in range(number))


def png(at: int, side: int) -> bytes:
    """A picture of random-looking pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes((at * 31 + x * y * 7) % 256 for x in range(side * 3)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def wav(at: int, rate: int) -> bytes:
    """A fifth of a second of a tone."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        tone = (int(9000 * math.sin(6.28 * (200 + 50 * at) * step / rate)) for step in range(rate // 5))
        file.writeframes(b"".join(struct.pack("<h", each) for each in tone))
    return made.getvalue()


def several(make: Callable[[int], dict[str, Any]], **sizes: int) -> Splits:
    """Splits of so many rows."""
    return {split: [make(at) for at in range(size)] for split, size in sizes.items()}


def write_parquet(path: Path, rows: Rows, features: Features) -> None:
    """A parquet file with the types of its columns in its header, as ``push_to_hub`` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), path)


def repository(
    hub: Hub, name: str, configs: dict[str, tuple[Features, Splits]], prefix: Callable[[str], str] = "{}/".format
) -> Path:
    """Parquet files with a card that tells of configurations, splits and types."""
    folder = hub.folder("datasets", name)
    told, infos = [], {}
    for config, (features, splits) in configs.items():
        for split, rows in splits.items():
            write_parquet(folder / f"{prefix(config)}{split}-00000-of-00001.parquet", rows, features)
        files = [{"split": split, "path": f"{prefix(config)}{split}-*"} for split in splits]
        told.append({"config_name": config, "data_files": files})
        sizes = {split: SplitInfo(split, num_bytes=1, num_examples=len(rows)) for split, rows in splits.items()}
        infos[config] = DatasetInfo(features=features, splits=SplitDict(sizes), download_size=1, dataset_size=1)
    card = DatasetCardData(configs=told)
    DatasetInfosDict(infos).to_dataset_card_data(card)
    (folder / "README.md").write_text(f"---\n{card}\n---\n# {name}\n")
    return folder


def plain(hub: Hub, name: str, types: dict[str, Any], splits: Splits, config: str = "default") -> None:
    """One configuration in ``data/``, or in a folder of its own name."""
    repository(hub, name, {config: (Features(types), splits)}, "data/".format if config == "default" else "{}/".format)


def converted(hub: Hub, name: str, features: Features, splits: Splits) -> None:
    """A script on the main branch, and what the hub has made of it on a branch of its own."""
    short = name.partition("/")[2]
    script = hub.folder("datasets", name) / f"{short}.py"
    script.write_text("raise RuntimeError('nobody may run this')\n")
    (script.parent / "README.md").write_text("---\nlanguage:\n- en\n---\n")
    branch = hub.folder("datasets", name, "refs/convert/parquet")
    for split, rows in splits.items():
        write_parquet(branch / short / split / "0000.parquet", rows, features)


def ag_news(hub: Hub) -> None:
    types = {"text": TEXT, "label": ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])}
    plain(hub, "fancyzhx/ag_news", types, several(lambda at: {"text": words(at), "label": at % 4}, train=8, test=5))


def alpaca(hub: Hub) -> None:
    folder = hub.folder("datasets", "tatsu-lab/alpaca")

    def row(at: int) -> dict[str, Any]:
        output = "" if at == 2003 else words(at + 1)  # As some of the real rows have it.
        question = {"instruction": words(at), "input": "" if at % 2 else words(at, 2), "output": output}
        return question | {"text": f"Below is an instruction. {words(at)} {output}"}

    features = Features(dict.fromkeys(("instruction", "input", "output", "text"), TEXT))
    write_parquet(folder / "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", [*map(row, range(2006))], features)
    (folder / "README.md").write_text("---\nlanguage:\n- en\ntask_categories:\n- text-generation\n---\n# Alpaca\n")


def cifar10(hub: Hub) -> None:
    kinds = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    types = {"img": Image(), "label": ClassLabel(names=kinds)}
    splits = several(lambda at: {"img": {"bytes": png(at, 32), "path": None}, "label": at % 10}, train=12, test=4)
    plain(hub, "uoft-cs/cifar10", types, splits, "plain_text")


def cnn_dailymail(hub: Hub) -> None:
    features = Features(dict.fromkeys(("article", "highlights", "id"), TEXT))

    def row(at: int) -> dict[str, Any]:
        return {"article": words(at, 20), "highlights": words(at, 4), "id": f"{at:040x}"}

    splits = several(row, train=6, validation=3, test=2)
    repository(hub, "abisee/cnn_dailymail", dict.fromkeys(("1.0.0", "2.0.0", "3.0.0"), (features, splits)))


def commonsense_qa(hub: Hub) -> None:
    choices = Lists({"label": TEXT, "text": TEXT})
    types = {"id": TEXT, "question": TEXT, "question_concept": TEXT, "choices": choices, "answerKey": TEXT}

    def row(at: int) -> dict[str, Any]:
        answers = {"label": list("ABCDE"), "text": [words(at + each, 2) for each in range(5)]}
        start = {"id": f"{at:032x}", "question": words(at), "question_concept": "fox", "choices": answers}
        return start | {"answerKey": "ABCDE"[at % 5]}

    splits = several(row, train=7, validation=4)
    plain(hub, "tau/commonsense_qa", types, splits | {"test": [row(1) | {"answerKey": ""}]})


def tagged(at: int, most: int) -> dict[str, Any]:
    tokens = words(at, 3 + at % 4).split()
    return {"id": str(at), "tokens": tokens, "ner_tags": [(at + each) % most for each in range(len(tokens))]}


def conll2003(hub: Hub) -> None:
    parts = [
        '"',
        "''",
        "#",
        "$",
        "(",
        ")",
        ",",
        ".",
        ":",
        "``",
        "CC",
        "CD",
        "DT",
        "EX",
        "FW",
        "IN",
        "JJ",
        "JJR",
        "JJS",
        "LS",
        "MD",
        "NN",
        "NNP",
        "NNPS",
        "NNS",
        "NN|SYM",
        "PDT",
        "POS",
        "PRP",
        "PRP$",
        "RB",
    ]
    chunks = ["O", "B-ADJP", "I-ADJP", "B-ADVP", "I-ADVP", "B-NP", "I-NP"]
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    tags = {"pos_tags": parts, "chunk_tags": chunks, "ner_tags": names}
    types = {"id": TEXT, "tokens": List(TEXT)} | {name: List(ClassLabel(names=each)) for name, each in tags.items()}

    def row(at: int) -> dict[str, Any]:
        made = tagged(at, 9)
        other = [each % 7 for each in made["ner_tags"]]
        return made | {"pos_tags": other, "chunk_tags": other}

    converted(hub, "eriktks/conll2003", Features(types), several(row, train=6, validation=4, test=3))


def wnut_17(hub: Hub) -> None:
    kinds = ["corporation", "creative-work", "group", "location", "person", "product"]
    names = ["O", *(f"{place}-{kind}" for kind in kinds for place in "BI")]
    features = Features({"id": TEXT, "tokens": List(TEXT), "ner_tags": List(ClassLabel(names=names))})
    splits = several(lambda at: tagged(at, 13), train=6, validation=4, test=3)
    converted(hub, "leondz/wnut_17", features, splits)


def go_emotions(hub: Hub) -> None:
    kinds = [
        "admiration",
        "amusement",
        "anger",
        "annoyance",
        "approval",
        "caring",
        "confusion",
        "curiosity",
        "desire",
        "disappointment",
        "disapproval",
        "disgust",
        "embarrassment",
        "excitement",
        "fear",
        "gratitude",
        "grief",
        "joy",
        "love",
        "nervousness",
        "optimism",
        "pride",
        "realization",
        "relief",
        "remorse",
        "sadness",
        "surprise",
        "neutral",
    ]
    raw = {"text": TEXT, "id": TEXT, "rater_id": Value("int32")} | dict.fromkeys(kinds, Value("int32"))
    simple = {"text": TEXT, "labels": Lists(ClassLabel(names=kinds)), "id": TEXT}
    ones = [{"text": words(at), "id": f"e{at}", "rater_id": at} | dict.fromkeys(kinds, at % 2) for at in range(4)]

    def row(at: int) -> dict[str, Any]:
        return {"text": words(at), "labels": sorted({at % 28, at * 5 % 28}), "id": f"e{at}"}

    configs = {
        "raw": (Features(raw), {"train": ones}),
        "simplified": (Features(simple), several(row, train=8, validation=4, test=3)),
    }
    repository(hub, "google-research-datasets/go_emotions", configs)


def hellaswag(hub: Hub) -> None:
    texts = ("activity_label", "ctx_a", "ctx_b", "ctx")
    types = {"ind": Value("int32"), **dict.fromkeys(texts, TEXT), "endings": Lists(TEXT)}
    types |= dict.fromkeys(("source_id", "split", "split_type", "label"), TEXT)

    def row(at: int) -> dict[str, Any]:
        start = {
            "ind": at,
            "activity_label": "Fishing",
            "ctx_a": words(at),
            "ctx_b": "then",
            "ctx": f"{words(at)} then",
        }
        end = {"endings": [words(at + each, 4) for each in range(4)], "source_id": "activitynet~v_1", "split": "train"}
        return start | end | {"split_type": "indomain", "label": str(at % 4)}

    splits = several(row, train=6, validation=4)
    plain(hub, "Rowan/hellaswag", types, splits | {"test": [row(1) | {"label": ""}]})


def imdb(hub: Hub) -> None:
    types = {"text": TEXT, "label": ClassLabel(names=["neg", "pos"])}
    splits = several(lambda at: {"text": words(at), "label": at % 2}, train=6, test=4)
    splits["unsupervised"] = [{"text": words(3), "label": -1}]
    plain(hub, "stanfordnlp/imdb", types, splits, "plain_text")


def minds14(hub: Hub) -> None:
    intents = [
        "abroad",
        "address",
        "app_error",
        "atm_limit",
        "balance",
        "business_loan",
        "card_issues",
        "cash_deposit",
        "direct_debit",
        "freeze",
        "high_value_payment",
        "joint_account",
        "latest_transactions",
        "pay_bill",
    ]
    languages = [
        "cs-CZ",
        "de-DE",
        "en-AU",
        "en-GB",
        "en-US",
        "es-ES",
        "fr-FR",
        "it-IT",
        "ko-KR",
        "nl-NL",
        "pl-PL",
        "pt-PT",
        "ru-RU",
        "zh-CN",
    ]
    types = {"path": TEXT, "audio": Audio(sampling_rate=8000), "transcription": TEXT, "english_transcription": TEXT}
    types |= {"intent_class": ClassLabel(names=intents), "lang_id": ClassLabel(names=languages)}

    def row(at: int) -> dict[str, Any]:
        sound = {"bytes": wav(at, 8000), "path": f"{at}.wav"}
        said = {"path": f"en-US~{intents[at]}/{at}.wav", "audio": sound, "transcription": words(at)}
        return said | {"english_transcription": words(at), "intent_class": at, "lang_id": 4}

    configs = {each: (Features(types), several(row, train=10)) for each in ("en-AU", "en-US", "all")}
    repository(hub, "PolyAI/minds14", configs)


def glue(hub: Hub) -> None:
    """The parts of it that conf/data names, and one more."""
    number = Value("int32")
    follows = ClassLabel(names=["entailment", "neutral", "contradiction"])
    mnli = Features({"premise": TEXT, "hypothesis": TEXT, "label": follows, "idx": number})
    stsb = Features({"sentence1": TEXT, "sentence2": TEXT, "label": Value("float32"), "idx": number})
    cola = Features({"sentence": TEXT, "label": ClassLabel(names=["unacceptable", "acceptable"]), "idx": number})

    def pair(at: int) -> dict[str, Any]:
        return {"premise": words(at), "hypothesis": words(at + 1, 3), "label": at % 3, "idx": at}

    def like(at: int) -> dict[str, Any]:
        return {"sentence1": words(at), "sentence2": words(at + 1), "label": at * 0.7 % 5, "idx": at}

    inference = several(pair, train=7, validation_matched=4, validation_mismatched=4)
    inference |= {f"test_{each}": [pair(1) | {"label": -1}] for each in ("matched", "mismatched")}
    alike = several(like, train=6, validation=4) | {"test": [like(1) | {"label": -1.0}]}
    sense = several(lambda at: {"sentence": words(at), "label": at % 2, "idx": at}, train=4, validation=2)
    repository(hub, "nyu-mll/glue", {"cola": (cola, sense), "mnli": (mnli, inference), "stsb": (stsb, alike)})


def openhermes(hub: Hub) -> None:
    """One file of JSON, a list of objects that all have all keys."""
    empty = ("title", "custom_instruction", "topic", "model_name", "model", "skip_prompt_formatting", "category")
    more = ("views", "language", "id", "hash", "avatarUrl", "idx", "system_prompt")

    def row(at: int) -> dict[str, Any]:
        turns = [{"from": "human", "value": words(at)}, {"from": "gpt", "value": words(at + 1)}]
        if at % 5 == 0:
            turns.insert(0, {"from": "system", "value": "You are an AI assistant."})
        said = {"conversations": turns, "source": "airoboros2.2"}
        return dict.fromkeys((*empty, *more)) | ({"category": "orca"} if at % 2 else {}) | said

    folder = hub.folder("datasets", "teknium/OpenHermes-2.5")
    (folder / "openhermes2_5.json").write_text(json.dumps([row(at) for at in range(2006)], indent=1))
    (folder / "README.md").write_text("---\nlanguage:\n- eng\npretty_name: OpenHermes 2.5\n---\n# OpenHermes 2.5\n")


def opus_books(hub: Hub) -> None:
    def rows(first: str, second: str) -> tuple[Features, Splits]:
        types = {"id": TEXT, "translation": Translation(languages=[first, second])}
        texts = [{"id": str(at), "translation": {first: words(at), second: words(at + 1)}} for at in range(100)]
        return Features(types), {"train": texts}

    configs = {f"{first}-{second}": rows(first, second) for first, second in (("de", "en"), ("en", "fr"))}
    repository(hub, "Helsinki-NLP/opus_books", configs)


def wmt16(hub: Hub) -> None:
    def rows(first: str) -> tuple[Features, Splits]:
        types = {"translation": Translation(languages=[first, "en"])}

        def row(at: int) -> dict[str, Any]:  # Europarl, which is in the train split, has lines with nothing in them.
            return {"translation": {first: "" if at == 3 else words(at), "en": words(at + 1)}}

        splits = several(row, train=8) | several(lambda at: row(at + 4), validation=3, test=2)
        return Features(types), splits

    repository(hub, "wmt/wmt16", {"cs-en": rows("cs"), "de-en": rows("de")})


def samsum(hub: Hub) -> None:
    """Comma-separated files; one of the real train rows has no dialogue."""
    folder = hub.folder("datasets", "knkarthick/samsum")
    for split, size in {"train": 7, "validation": 3, "test": 2}.items():
        with open(folder / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "dialogue", "summary"])
            for at in range(size):
                said = f"Ann: {words(at)}\r\nBob: {words(at + 1)}"
                writer.writerow([f"1381{at}", "" if split == "train" and at == 4 else said, words(at, 3)])
    (folder / "README.md").write_text("---\nlanguage:\n- en\npretty_name: SAMSum Corpus\n---\n# SAMSum\n")


def talk(at: int) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": words(at)}, {"role": "assistant", "content": words(at + 1)}]
    return [*turns, {"role": "user", "content": "and"}, {"role": "assistant", "content": words(at + 2, 3)}]


def smoltalk(hub: Hub) -> None:
    types = {"messages": [{"content": TEXT, "role": TEXT}], "source": TEXT}

    def row(at: int) -> dict[str, Any]:
        system = [{"role": "system", "content": "Be brief."}] if at % 3 == 0 else []
        return {"messages": [*system, *talk(at)], "source": "smol-magpie-ultra-short"}

    plain(hub, "HuggingFaceTB/smol-smoltalk", types, several(row, train=6, test=3))


def ultrachat(hub: Hub) -> None:
    types = {"prompt": TEXT, "prompt_id": TEXT, "messages": [{"content": TEXT, "role": TEXT}]}

    def row(at: int) -> dict[str, Any]:
        return {"prompt": words(at), "prompt_id": f"{at:064x}", "messages": talk(at)}

    splits = several(row, train_sft=6, test_sft=3, train_gen=2, test_gen=2)
    plain(hub, "HuggingFaceH4/ultrachat_200k", types, splits)


def question(at: int, answered: bool) -> dict[str, Any]:
    context = words(at, 12)
    answer = context.split(" ", 3)[2]
    found = (
        {"text": [answer], "answer_start": [context.index(answer)]} if answered else {"text": [], "answer_start": []}
    )
    return {"id": f"{at:024x}", "title": "Fox", "context": context, "question": words(at + 2, 4), "answers": found}


def questions() -> dict[str, Any]:
    answers = Lists({"text": TEXT, "answer_start": Value("int32")})
    return {"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": answers}


def squad(hub: Hub) -> None:
    splits = several(lambda at: question(at, True), train=6, validation=4)
    plain(hub, "rajpurkar/squad", questions(), splits, "plain_text")


def squad_v2(hub: Hub) -> None:
    splits = several(lambda at: question(at, at % 3 > 0), train=6, validation=4)
    plain(hub, "rajpurkar/squad_v2", questions(), splits, "squad_v2")


def sst2(hub: Hub) -> None:
    types = {"idx": Value("int32"), "sentence": TEXT, "label": ClassLabel(names=["negative", "positive"])}
    splits = several(lambda at: {"idx": at, "sentence": words(at), "label": at % 2}, train=6, validation=4)
    plain(hub, "stanfordnlp/sst2", types, splits | {"test": [{"idx": 0, "sentence": words(1), "label": -1}]})


def swag(hub: Hub) -> None:
    endings = [f"ending{each}" for each in range(4)]
    texts = ("video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source", *endings)
    types = dict.fromkeys(texts, TEXT) | {"label": ClassLabel(names=list("0123"))}

    def row(at: int) -> dict[str, Any]:
        made = {name: words(at + each, 4) for each, name in enumerate(texts)}
        return made | {"label": at % 4}

    regular = Features(types), several(row, train=6, validation=4, test=2)
    kinds = {"startphrase": TEXT, "gold-ending": TEXT}
    full = Features(kinds), several(lambda at: dict.fromkeys(kinds, words(at)), train=3, validation=2)
    repository(hub, "allenai/swag", {"full": full, "regular": regular})


def tiny_stories(hub: Hub) -> None:
    """Parquet files beside the same stories as plain text, and no word on which of them counts."""
    folder = hub.folder("datasets", "roneneldan/TinyStories")
    names = {"train": "00000-of-00001-2d5a1467fff1081b", "validation": "00000-of-00001-869c898b519ad725"}
    for split, name in names.items():
        rows = [{"text": f"Once there was {words(at)}.\n\n{words(at + 1)}." if at != 3 else ""} for at in range(6)]
        write_parquet(folder / f"data/{split}-{name}.parquet", rows, Features({"text": TEXT}))
    for name in ("TinyStories-train.txt", "TinyStories-valid.txt", "TinyStoriesV2-GPT4-train.txt"):
        (folder / name).write_text("Once there was a fox.\n<|endoftext|>\n")
    (folder / "README.md").write_text("---\nlicense: cdla-sharing-1.0\nlanguage:\n- en\n---\n# TinyStories\n")


def wikitext2(hub: Hub) -> None:
    """Line by line, every other one of them empty."""
    lines: Sequence[str] = ["", " = Fox = \n", "", f" {words(1, 20)} \n", f" {words(2, 20)} \n", ""]
    rows = {split: [{"text": line} for line in lines] for split in ("test", "train", "validation")}
    names = ("wikitext-103-raw-v1", "wikitext-103-v1", "wikitext-2-raw-v1", "wikitext-2-v1")
    repository(hub, "Salesforce/wikitext", {name: (Features({"text": TEXT}), rows) for name in names})


LAYOUTS: dict[str, Callable[[Hub], None]] = {
    each.__name__: each
    for each in (ag_news, alpaca, cifar10, cnn_dailymail, commonsense_qa, conll2003, go_emotions, hellaswag, imdb)
} | {
    "minds14": minds14,
    "mnli": glue,
    "openhermes": openhermes,
    "opus_books": opus_books,
    "samsum": samsum,
    "smoltalk": smoltalk,
    "squad": squad,
    "squad_v2": squad_v2,
    "sst2": sst2,
    "stsb": glue,
    "swag": swag,
    "tiny_stories": tiny_stories,
    "ultrachat": ultrachat,
    "wikitext2": wikitext2,
    "wmt16_en_de": wmt16,
    "wnut_17": wnut_17,
}
"""What makes the repository of each data set."""
