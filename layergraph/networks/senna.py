"""SENNA: Collobert et al., JMLR'11. A label for each word, from a window of five words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS, CAPITALS, SUFFIXES, TAGS, GAZETTEER = 130_000, 5, 455, 46, 3
PADDING = 0
WINDOW = 5


class Senna(nn.Module):
    """int64 [T] for each kind of feature to scores [T, labels].

    The first feature is the word itself, embedded in 50 values; the others, as many as `tables`,
    in 5 each. Index 0 pads the sentence. Source: the JMLR paper's sections 3 and 6.1 for the
    tables (130,000 words, 455 suffixes), claritylab/djinn {pos,ner,chk}.prototxt, by
    Neurosurgeon's authors, for the layers: 300 hidden units, hard tanh. Neurosurgeon (ASPLOS'17)
    Table 3 lists POS, NER and CHK with 3 layers each, without sizes, and looks the embeddings up
    outside; they are layers here, as they are what a device would have to carry.
    """

    def __init__(self, tables: tuple[int, ...], labels: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 50)
        self.features = nn.ModuleList(nn.Embedding(size, 5) for size in tables)
        self.hidden = nn.Linear(WINDOW * (50 + 5 * len(tables)), 300)
        self.output = nn.Linear(300, labels)

    def forward(self, words: Tensor, *features: Tensor) -> Tensor:
        margin = WINDOW // 2
        columns = [
            table(nn.functional.pad(indices, (margin, margin), value=PADDING))
            for table, indices in zip((self.words, *self.features), (words, *features), strict=True)
        ]
        windows = torch.cat(columns, dim=1).unfold(0, WINDOW, 1).permute(0, 2, 1).flatten(1)
        scores: Tensor = self.output(nn.functional.hardtanh(self.hidden(windows)))
        return scores


class SennaPOS(Senna):
    """Part-of-speech tags: words, capitals, suffixes to 45 scores.

    6,606,145 parameters, 25.2 MiB.
    """

    def __init__(self) -> None:
        super().__init__((CAPITALS, SUFFIXES), 45)


class SennaNER(Senna):
    """Names of four kinds: words, capitals, four gazetteers to 17 scores.

    6,618,002 parameters, 25.2 MiB.
    """

    def __init__(self) -> None:
        super().__init__((CAPITALS, *[GAZETTEER] * 4), 17)


class SennaCHK(Senna):
    """Phrase chunks: words, capitals, part-of-speech tags to 42 scores.

    6,603,197 parameters, 25.2 MiB.
    """

    def __init__(self) -> None:
        super().__init__((CAPITALS, TAGS), 42)
