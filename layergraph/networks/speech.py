"""Speech: Kaldi's feed-forward acoustic model and Deep Speech."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def splice(frames: Tensor, context: int) -> Tensor:
    """[T, F] to [T, (2 * context + 1) * F]: each frame beside its neighbours, edges repeated."""
    width = frames.shape[1]
    before, after = frames[:1].expand(context, width), frames[-1:].expand(context, width)
    padded = torch.cat([before, frames, after])
    return padded.unfold(0, 2 * context + 1, 1).permute(0, 2, 1).flatten(1)


class KaldiASR(nn.Module):
    """float32 features [T, 40] of T 10 ms frames to scores [T, 1706] of phone states.

    Source: claritylab/djinn asr.prototxt, by Neurosurgeon's authors: 11 spliced frames (440
    values), six hidden layers of 2048 sigmoids. 25,380,522 parameters, 96.8 MiB. The splicing is
    inside, so that a frame crosses the first cut once and not eleven times. Neurosurgeon
    (ASPLOS'17) Table 3 lists it as ASR, 13 layers, without a size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(440, 2048), nn.Sigmoid(),
            *(layer for _ in range(5) for layer in (nn.Linear(2048, 2048), nn.Sigmoid())),
        )  # fmt: skip
        self.output = nn.Linear(2048, 1706)

    def forward(self, frames: Tensor) -> Tensor:
        scores: Tensor = self.output(self.hidden(splice(frames, 5)))
        return scores


class DeepSpeech(nn.Module):
    """float32 features [T, 81] of T 10 ms frames to log probabilities [T, 29] of letters.

    Source: Hannun et al., 2014, sections 2 and 5.1: 80 filter banks and the energy, nine frames
    of context on each side, five hidden layers of 2048, the fourth recurrent in both directions
    and summed, rectifiers clipped at 20. 32,587,805 parameters, 124.3 MiB. Torch's recurrent layer
    differs from the paper's twice: its rectifier is not clipped, and each direction has input
    weights of its own. JointDNN (TMC'19) measures it; no published size was found to compare.
    """

    clip = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(19 * 81, 2048)
        self.fc2 = nn.Linear(2048, 2048)
        self.fc3 = nn.Linear(2048, 2048)
        self.recurrent = nn.RNN(2048, 2048, nonlinearity="relu", bidirectional=True)
        self.fc5 = nn.Linear(2048, 2048)
        self.fc6 = nn.Linear(2048, 29)

    def forward(self, frames: Tensor) -> Tensor:
        x = splice(frames, 9)
        for layer in (self.fc1, self.fc2, self.fc3):
            x = nn.functional.hardtanh(layer(x), 0.0, self.clip)
        forwards, backwards = self.recurrent(x)[0].chunk(2, dim=1)
        x = nn.functional.hardtanh(self.fc5(forwards + backwards), 0.0, self.clip)
        return torch.log_softmax(self.fc6(x), dim=1)
