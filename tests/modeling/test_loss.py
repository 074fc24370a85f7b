"""Losses against numbers computed by hand."""

import math
from collections.abc import Callable

import torch

from mmm4rec_hf import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.items_mmm4rec import l2_normalize
from mmm4rec_hf.modeling.loss_mmm4rec import full_cross_entropy, in_batch_cross_entropy


def test_full_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0), 0.0], [math.log(2.0), 0.0, 0.0]])
    # Probabilities of the targets: 3/5 and 1/4.
    expected = -(math.log(3 / 5) + math.log(1 / 4)) / 2
    assert math.isclose(full_cross_entropy(logits, torch.tensor([1, 2])).item(), expected, rel_tol=1e-6)


def test_in_batch_cross_entropy_counts_a_second_row_of_the_same_target_as_a_negative() -> None:
    users = torch.tensor([[math.log(2.0), 0.0], [0.0, math.log(2.0)]]) * 0.5
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Over a temperature of 0.5: row 1 scores ln 2 and ln 2, row 2 scores 0 and 0; both targets have probability 1/2.
    assert math.isclose(in_batch_cross_entropy(users, targets, 0.5).item(), math.log(2), rel_tol=1e-6)


def test_the_padding_item_takes_no_part_in_the_loss_of_a_new_model(
    lively_model: Callable[..., MMM4RecForSequentialRecommendation], batch: dict[str, torch.Tensor]
) -> None:
    model = lively_model()
    output = model(**batch)
    expected = torch.nn.functional.cross_entropy(output.logits[:, 1:], batch["labels"] - 1)
    torch.testing.assert_close(output.loss, expected)
    published = lively_model(score_padding_item=True)(**batch)
    torch.testing.assert_close(published.loss, torch.nn.functional.cross_entropy(published.logits, batch["labels"]))
    assert published.logits[:, 0].abs().max() < 100 and output.logits[:, 0].max() < -1e38


def test_a_zero_vector_normalises_to_zero_with_a_zero_gradient() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    y = l2_normalize(x)
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    y.sum().backward()
    assert x.grad[0].tolist() == [0.0, 0.0]
    # d(x/|x|)/dx summed over outputs, at (3, 4): (y_2 - 0.6 (0.6 + 0.8), ...)/5
    torch.testing.assert_close(x.grad[1], torch.tensor([(1 - 0.6 * 1.4) / 5, (1 - 0.8 * 1.4) / 5]))
