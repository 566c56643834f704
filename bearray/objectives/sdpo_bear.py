"""BEAR on S-DPO (arXiv 2601.22925, figure 7): the regulariser on the target and, negated, on the negatives.

    L = L_S-DPO + lam * ( L_reg(x, y_w) - mean_j L_reg(x, y_l^j) ),     mean over windows
    L_reg(x, y) = sum_t log sigmoid( (log beta_t - log p(y_t)) / xi )                          (3.4)

with beta_t the B-th largest probability at step t, held constant. No further forward pass. The target's part
pulls its tokens into the top B as `bearray.objectives.bear` says; the negatives' part, -log sigmoid(margin /
xi), pushes a token down as long as it is in the top B and lets go once it would be pruned. The regulariser's
softmax and B are over the trie's valid next tokens or the whole vocabulary (`vocabulary`), S-DPO's sums over
the whole vocabulary.

Left open by the paper and decided here: the mean over negatives (a sum would make their part grow with their
number), beta_t detached, and sums over tokens, since S-DPO's log-probabilities are sums, too. A negative that
begins like the target pushes on what they share; `mask_common_prefix` leaves those of its tokens out. With
form "hinge" the target's term is the hinge of `bearray.objectives.bear`; the negatives' stays.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bearray.config import Form, NegativeKind, Normalize, ObjectiveConfig
from bearray.errors import ConfigError
from bearray.objectives.base import LossOutput
from bearray.objectives.ops import beam_threshold, check_positive, check_weight, log_softmax, mask_out, pick
from bearray.objectives.others import answer_sums, answers_of
from bearray.objectives.sdpo import SDPO
from bearray.objectives.tokens import Answers, AnswerTokens


def shares_prefix(tokens: AnswerTokens, answers: Answers) -> Tensor:
    """[N] bool: all of the answer's tokens up to this one are those of its window's target."""
    step, instance = tokens.step, tokens.instance
    table = step.new_full((len(answers.title), int(step.max()) + 1 if len(step) else 1), -1)  # [A, L]
    table[instance, step] = tokens.targets
    target = answers.is_target.nonzero()[:, 0][answers.window]
    return (table == table[target]).cumprod(1).bool()[instance, step]


class SDPOBear(SDPO):
    """S-DPO with BEAR's regulariser.

    Args:
        lam: weight of the regulariser, at least 0. xi: temperature of its sigmoid, above 0.
        beam_width: B.
        vocabulary: of the regulariser, "trie" or "full".
        form: "equation" or "hinge".
        mask_common_prefix: see the module's docstring.
        beta, negatives, negative_kind: as `PreferenceObjective`.

    Raises:
        ConfigError: a value that cannot work.
    """

    name = "sdpo_bear"
    source = "BEAR on S-DPO, arXiv 2601.22925, figure 7"
    needs = frozenset({"reference", "negatives", "trie"})

    def __init__(
        self,
        *,
        lam: float = 0.25,
        xi: float = 1.0,
        beam_width: int = 10,
        vocabulary: Normalize = "trie",
        form: Form = "equation",
        mask_common_prefix: bool = False,
        beta: float | None = None,
        negatives: int = 3,
        negative_kind: NegativeKind | None = None,
    ) -> None:
        super().__init__(beta=beta, negatives=negatives, negative_kind=negative_kind, beam_width=beam_width)
        self.lam = check_weight("lam", lam)
        self.xi = check_positive("xi", xi)
        if form not in ("equation", "hinge"):
            raise ConfigError(
                f"form is {form!r}; on S-DPO, BEAR's regulariser is an added term: equation or hinge"
            )
        self.form = form
        self.regularizer_vocabulary = vocabulary
        self.mask_common_prefix = mask_common_prefix

    @classmethod
    def from_config(cls, config: ObjectiveConfig) -> SDPOBear:
        return cls(
            lam=config.lam,
            xi=config.xi,
            beam_width=config.beam_width,
            vocabulary=config.vocabulary,
            form=config.form,
            mask_common_prefix=config.mask_common_prefix,
            beta=config.beta,
            negatives=config.negatives,
            negative_kind=config.negative_kind,
        )

    def __call__(self, tokens: AnswerTokens) -> LossOutput:
        log_probs, column = self.log_probs(tokens)
        output = self.compare(tokens, pick(log_probs, column))
        if self.regularizer_vocabulary == "trie":
            log_probs, column = log_softmax(mask_out(tokens.candidate_logits, None)), tokens.target_column
        margin = beam_threshold(log_probs, self.beam_width) - pick(log_probs, column)
        answers = answers_of(tokens)
        of_target = tokens.of_target
        away = F.logsigmoid(margin / self.xi)
        toward = away if self.form == "equation" else -F.logsigmoid(-margin / self.xi)
        if self.mask_common_prefix:
            away = away.where(~shares_prefix(tokens, answers), 0.0)
        of_answer = answer_sums(toward.where(of_target, away), tokens)  # [A]
        others = (~answers.is_target).to(of_answer.dtype)
        count = of_answer.new_zeros(answers.num_windows).index_add(0, answers.window, others)  # [R]
        sign = answers.is_target.to(of_answer.dtype) - others / count.clamp_min(1.0)[answers.window]
        penalty = (sign * of_answer).sum()
        output.total = output.total + self.lam * penalty
        output.metrics["regularizer"] = (penalty.detach(), output.weight)
        return output
