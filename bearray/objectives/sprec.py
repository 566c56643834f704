"""SPRec: self-play by turns of SFT and DPO (Gao et al., WWW 2025, arXiv 2412.09243).

First some epochs of SFT. Then iterations i = 0, 1, ..., each on windows W_i drawn from the training split:

    (i)   y_l(x) = a title that the model as it stands generates for x, for all x in W_i
    (ii)  one epoch over W_i of      -log p(y_w | x)                                                   (SFT)
    (iii) the reference becomes the model after (ii); one epoch over W_i of

              softplus( beta * [ log pi/pi_ref (y_l|x) - log pi/pi_ref (y_w|x) ] ),   beta 0.1         (DPO)

with y_w the target. What the model likes to say, and is not right, is pushed down: titles that it recommends
to everybody most of all. (ii) and (iii) are an epoch each, so an iteration takes two of `train.epochs`.

Published: 4 epochs of SFT on 4,096 windows, then 5 iterations on 2,048 each, learning rate 2e-5. Departures:

- y_l is the best title that is not the target, of a search with two beams over the catalogue. The published
  code takes the first quoted text of a greedy, free generation: it may be no title, and where the model is
  right it is the target itself, which is compared with itself.
- SFT before the iterations passes over all training windows (`data.train_windows` says how many there are).
- There is one optimiser and one learning-rate schedule for the whole run; published, each stage has its own.
- Both losses read the same prompt, and SFT's covers the answer only.
"""

from __future__ import annotations

from bearray.config import ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.dpo import DPO
from bearray.objectives.rounds import Draw, Round
from bearray.objectives.sft import SFT

_SFT_SHARE = 4 / 14
"""4 epochs of SFT, then 5 iterations of 2 epochs, as published."""


class SPRec(DPO):
    """Self-play. As a loss it is DPO's, that of the preference rounds; the SFT rounds have SFT's.

    Args:
        sft_epochs: epochs of SFT before the first iteration; None: such that whole iterations fill the rest,
            in the published proportion.
        round_windows: windows of each iteration; None: all.
        beta: scale of DPO's reward; None: 0.1.
        beam_width: only for the pruning metrics.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "sprec"
    source = "SPRec, Gao et al., WWW 2025, arXiv 2412.09243"

    def __init__(
        self,
        *,
        sft_epochs: int | None = None,
        round_windows: int | None = None,
        beta: float | None = None,
        beam_width: int = 10,
    ) -> None:
        super().__init__(beta=beta, negative_kind="self", beam_width=beam_width)
        if sft_epochs is not None and sft_epochs < 0:
            raise ConfigError(f"sft_epochs is {sft_epochs}; it must be at least 0, or None")
        if round_windows is not None and round_windows < 1:
            raise ConfigError(f"round_windows is {round_windows}; it must be at least 1, or None for all")
        self.sft_epochs, self.round_windows = sft_epochs, round_windows
        self.sft = SFT(beam_width=beam_width)

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> SPRec:
        if config.reference != "start":
            raise ConfigError(
                f"objective.reference is {config.reference!r}, but the reference of 'sprec' moves with every "
                "iteration; it must be 'start'"
            )
        return cls(
            sft_epochs=config.sft_epochs,
            round_windows=config.round_windows,
            beta=config.beta,
            beam_width=config.beam_width,
        )

    def schedule(self, epochs: int) -> tuple[Round, ...]:
        """SFT epochs, then iterations of an SFT and a DPO epoch.

        Raises:
            ConfigError: `epochs` have no room for an iteration, or for half an iteration too many.
        """
        before = self._sft_epochs(epochs)
        rest = epochs - before
        if rest < 2 or rest % 2:
            raise ConfigError(
                f"train.epochs is {epochs}, of which {before} are for SFT (objective.sft_epochs); the other "
                f"{rest} must be an even number of at least 2, since an iteration of 'sprec' is an epoch of "
                "SFT and one of DPO"
            )
        rounds = [Round(self.sft, "sft")] * before
        for number in range(rest // 2):
            draw = Draw(number, self.round_windows)
            rounds += [Round(self.sft, "sft", draw), Round(self, "dpo", draw, new_reference=True)]
        return tuple(rounds)

    def _sft_epochs(self, epochs: int) -> int:
        if self.sft_epochs is not None:
            return self.sft_epochs
        iterations = max(1, round(epochs * (1 - _SFT_SHARE) / 2))
        return max(0, epochs - 2 * iterations)
