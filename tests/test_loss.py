import math

import pytest
import torch
from tiny_objectives import (
    BIAS,
    DELTA,
    GATE,
    LOGIT_SCALE,
    OBJECTIVE_VARIANTS,
    SHARPNESS,
    WHOLE_GATE,
    make_items,
    make_objective,
    make_pair,
)

from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.loss_fgmm import OBJECTIVES

SMALL_VIDEO = {"width_multiplier": 0.125, "depths": [1]}
SMALL_TEXT = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 16}


def attended(query, regions) -> torch.Tensor:
    cosines = regions @ query
    return ((SHARPNESS * cosines).softmax(0) * cosines).sum()


def phrases_of(masks, i, k) -> list[int]:
    return [m for m in range(masks[0].shape[1]) if masks[0][i, m] and masks[1][i, m] == k]


def fine_score(tensors, masks, i, k, j, gates=(GATE, WHOLE_GATE), start=-1.5, whole=True) -> torch.Tensor:
    """Caption k of item i over the regions of clip j: its phrases, and itself as one more, weighted by their gates."""
    regions = tensors[2][j][masks[3][j]]
    phrases = [(tensors[0][i, m], gates[0], 0.0) for m in phrases_of(masks, i, k)]
    phrases += [(tensors[1][i, k], gates[1], start)] if whole else []
    scores = [attended(phrase, regions) for phrase, _, _ in phrases]
    logits = [
        DELTA * score + 10.0 * phrase @ gate + first
        for score, (phrase, gate, first) in zip(scores, phrases, strict=True)
    ]
    return (torch.stack(logits).softmax(0) * torch.stack(scores)).sum()


def score_without_gates(*arguments) -> torch.Tensor:
    return fine_score(*arguments, gates=(torch.zeros_like(GATE),) * 2, start=0.0)


def score_without_whole(*arguments) -> torch.Tensor:
    return fine_score(*arguments, whole=False)


def pooled(tensors, masks, i, k, j) -> torch.Tensor:
    return tensors[1][i, k] @ tensors[3][j]


def plain_contrast(tensors, masks, score) -> torch.Tensor:
    """MIL-NCE with loops: captions of an item share the numerator, both directions, over what is present."""
    with_regions = [j for j in range(len(masks[3])) if masks[3][j].any()]
    with_text = [i for i in range(len(masks[2])) if masks[2][i].any()]
    scaled = math.exp(LOGIT_SCALE)
    power = {
        (i, j): sum(torch.exp(scaled * score(tensors, masks, i, int(k), j)) for k in masks[2][i].nonzero())
        for i in with_text
        for j in with_regions
    }
    terms = [
        -0.5 * torch.log(power[i, i] / sum(power[other, i] for other in with_text))
        - 0.5 * torch.log(power[i, i] / sum(power[i, other] for other in with_regions))
        for i in with_text
        if i in with_regions
    ]
    return torch.stack(terms).mean()


def loss_of(objective, tensors, masks) -> torch.Tensor:
    return objective(*make_pair(tensors, masks))


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({}, fine_score),
        ({"phrase_gates": False}, score_without_gates),
        ({"whole_captions": False}, score_without_whole),
    ],
)
def test_loss_is_that_of_the_design(options, score):
    """In value and gradient, against loops over items, captions, phrases and regions."""
    tensors, masks = make_items()
    tensors = [tensor.requires_grad_() for tensor in tensors]
    loss = loss_of(make_objective(**options), tensors, masks)
    expected = plain_contrast(tensors, masks, score) + 0.3 * plain_contrast(tensors, masks, pooled)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    gradients = [torch.autograd.grad(value, tensors) for value in (loss, expected)]
    for gradient, right in zip(*gradients, strict=True):
        assert right.abs().max() > 1e-3 and torch.allclose(gradient, right, atol=1e-9)


def plain_coarse_parts(tensors, masks):
    """Cosine of each caption with each clip; whose captions and clips are there."""
    cosines = torch.einsum("ikd,jd->ijk", tensors[1], tensors[3])
    has_text, has_clip = masks[2].any(1).tolist(), masks[3].any(1).tolist()
    return cosines, has_text, has_clip, [i for i in range(len(has_text)) if has_text[i] and has_clip[i]]


def plain_mil_nce(tensors, masks) -> float:
    """Equation 1 of MIL-NCE: positives over positives and negatives, the negatives being the pairs of this clip with
    other captions and of these captions with other clips."""
    cosines, _, has_clip, both = plain_coarse_parts(tensors, masks)
    power = {
        (i, j, k): math.exp(math.exp(LOGIT_SCALE) * float(cosines[i, j, k]))
        for i, j, k in torch.cartesian_prod(*(torch.arange(size) for size in cosines.shape)).tolist()
        if masks[2][i, k] and has_clip[j]
    }
    terms = []
    for item in both:
        positives = sum(value for (i, j, _), value in power.items() if i == j == item)
        negatives = sum(value for (i, j, _), value in power.items() if (i == item) != (j == item))
        terms.append(-math.log(positives / (positives + negatives)))
    return sum(terms) / len(terms)


def plain_filip(tensors, masks) -> float:
    """Equations 1 to 4 of FILIP, padded tokens left out."""
    phrases, _, regions, _ = tensors
    mask, _, _, region_mask = masks
    number, temperature = len(phrases), math.exp(LOGIT_SCALE)
    has_text, has_clip = [bool(row.any()) for row in mask], [bool(row.any()) for row in region_mask]
    image_to_text, text_to_image = {}, {}
    for i in range(number):
        for j in range(number):
            if has_text[i] and has_clip[j]:
                cosines = regions[j][region_mask[j]] @ phrases[i][mask[i]].T
                image_to_text[j, i] = temperature * float(cosines.max(1).values.mean())
                text_to_image[i, j] = temperature * float(cosines.max(0).values.mean())
    both = [i for i in range(number) if has_text[i] and has_clip[i]]

    def cross_entropy(logits, item):
        return math.log(sum(math.exp(v) for (a, _), v in logits.items() if a == item)) - logits[item, item]

    return sum(0.5 * (cross_entropy(image_to_text, i) + cross_entropy(text_to_image, i)) for i in both) / len(both)


def mean_caption_cosines(tensors, masks) -> tuple[torch.Tensor, list[bool], list[bool], list[int]]:
    cosines, has_text, has_clip, both = plain_coarse_parts(tensors, masks)
    mean = torch.stack(
        [row[:, mask].mean(1) if mask.any() else row[:, 0] for row, mask in zip(cosines, masks[2], strict=True)]
    )
    return mean, has_text, has_clip, both


def plain_coarse(tensors, masks) -> float:
    """Cross-entropy of the right clip among the clips, and of the right text among the texts."""
    logits, has_text, has_clip, both = mean_caption_cosines(tensors, masks)
    logits = math.exp(LOGIT_SCALE) * logits
    rows = torch.cat([logits[i][has_clip].logsumexp(0, keepdim=True) - logits[i, i] for i in both])
    columns = torch.cat([logits[has_text, i].logsumexp(0, keepdim=True) - logits[i, i] for i in both])
    return float(0.5 * (rows + columns).mean())


def plain_siglip(tensors, masks) -> float:
    """Equation 1 of SigLIP over the texts and clips that are there."""
    logits, has_text, has_clip, both = mean_caption_cosines(tensors, masks)
    logits = math.exp(LOGIT_SCALE) * logits + BIAS
    terms = [
        math.log(1 + math.exp(-float(logits[i, j]) * (1 if i == j else -1)))
        for i in range(len(has_text))
        for j in range(len(has_clip))
        if has_text[i] and has_clip[j]
    ]
    return sum(terms) / len(both)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("mil_nce", plain_mil_nce), ("filip", plain_filip), ("coarse", plain_coarse), ("siglip", plain_siglip)],
)
def test_baselines_are_their_papers_formulas(name, plain):
    tensors, masks = make_items()
    loss = float(loss_of(make_objective(objective=name), tensors, masks))
    assert loss == pytest.approx(plain(tensors, masks), abs=1e-9)


@pytest.mark.parametrize("gce_q", [1e-6, 0.4, 1.0])
def test_gce_is_generalised_cross_entropy(gce_q):
    """(1 - p^q) / q of the probability of the right clip, and of the right text; for q near 0 this is -log p."""
    tensors, masks = make_items()
    logits, has_text, has_clip, both = mean_caption_cosines(tensors, masks)
    power = (math.exp(LOGIT_SCALE) * logits).exp()
    of_clip = [float(power[i, i] / power[i][has_clip].sum()) for i in both]
    of_text = [float(power[i, i] / power[has_text, i].sum()) for i in both]
    terms = [(1 - p**gce_q) / gce_q for p in of_clip + of_text]
    loss = float(loss_of(make_objective(objective="coarse", gce_q=gce_q), tensors, masks))
    assert loss == pytest.approx(sum(terms) / len(terms), abs=1e-8)
    if gce_q < 0.1:
        assert loss == pytest.approx(plain_coarse(tensors, masks), abs=1e-4)


def test_one_caption_an_item_is_symmetric_infonce():
    tensors, masks = make_items(num_captions=1)
    masks = (masks[0], torch.zeros_like(masks[1]), masks[2], masks[3])
    kept = [0, 2, 4]
    tensors, masks = [tensor[kept] for tensor in tensors], [mask[kept] for mask in masks]
    objective = make_objective()
    queries, keys = make_pair(tensors, masks)
    fine = objective.fine_scores(queries, keys).squeeze(-1) * math.exp(LOGIT_SCALE)
    coarse = objective.coarse_scores(queries, keys).squeeze(-1) * math.exp(LOGIT_SCALE)
    target = torch.arange(3)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = [0.5 * (cross_entropy(x, target) + cross_entropy(x.T, target)) for x in (fine, coarse)]
    assert float(objective(queries, keys)) == pytest.approx(float(expected[0] + 0.3 * expected[1]), abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_logits_are_what_each_objective_trains(name):
    """Of several captions the mean of their odds or of their cosines, or all phrases as one text."""
    tensors, masks = make_items()
    objective = make_objective(objective=name)
    logits = objective(*make_pair(tensors, masks), output="logits")
    scaled, bias = math.exp(LOGIT_SCALE), BIAS if name == "siglip" else 0.0
    assert (masks[2].sum(1) == 2).any()
    for i, j in torch.cartesian_prod(torch.arange(5), torch.arange(5)).tolist():
        captions = [k for k in range(2) if masks[2][i, k]]
        if not captions or not masks[3][j].any():
            expected = -scaled + bias
        elif name in ("coarse", "siglip"):
            expected = scaled * torch.stack([pooled(tensors, masks, i, k, j) for k in captions]).mean() + bias
        elif name == "filip":
            cosines = tensors[0][i][masks[0][i]] @ tensors[2][j][masks[3][j]].T
            expected = scaled * cosines.amax(1).mean()
        else:
            score = fine_score if name == "fine" else pooled
            scores = [scaled * score(tensors, masks, i, k, j) for k in captions]
            expected = torch.stack(scores).exp().mean().log()
        assert logits[i, j].item() == pytest.approx(float(expected), abs=1e-9)


def membership_of(queries) -> torch.Tensor:
    """(B, P, K) 1 where a phrase belongs to a caption."""
    belongs = torch.nn.functional.one_hot(queries.captions, queries.embeds.shape[1])
    return (belongs * queries.mask.unsqueeze(-1)).double()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_attention_times_similarities_are_the_scores(name):
    tensors, masks = make_items()
    objective, (queries, keys) = make_objective(name), make_pair(tensors, masks)
    attention = objective(queries, keys, output="attention")
    belongs = membership_of(attention.queries)
    present = masks[2].unsqueeze(1) & masks[3].any(1).view(1, -1, 1)  # (Bq, Bk, K)
    scores = torch.einsum("ijp,ijp,ipk->ijk", attention.phrases, attention.similarity, belongs)
    assert (scores - objective.scores(queries, keys))[present].abs().max() < 1e-9 and present.sum() > 20
    # What a phrase is similar to: the regions that it attends to, or with pooled embeddings the clip.
    cosines = torch.einsum("ipd,jnd->ijpn", attention.queries.phrases, tensors[2])
    attended = (attention.regions * cosines).sum(-1)
    pooled_cosines = torch.einsum("ikd,jd,ipk->ijp", tensors[1], tensors[3], belongs)
    expected = attended if objective.needs_phrases else pooled_cosines
    kept = attention.queries.mask.unsqueeze(1) & masks[3].any(1).view(1, -1, 1)
    assert torch.allclose(attention.similarity[kept], expected[kept], atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_attention_sums_to_one_over_what_is_there(name):
    tensors, masks = make_items()
    attention = make_objective(name)(*make_pair(tensors, masks), output="attention")
    queries = attention.queries
    kept = (queries.mask.unsqueeze(1) & masks[3].any(1).view(1, -1, 1)).double()  # (Bq, Bk, P)
    assert torch.allclose(attention.regions.sum(-1), kept, atol=1e-9)
    assert (attention.regions.masked_select(~masks[3].view(1, 5, 1, 6)) == 0).all()
    of_captions = torch.einsum("ijp,ipk->ijk", attention.phrases, membership_of(queries))
    captions = masks[2].unsqueeze(1).expand_as(of_captions)
    assert torch.allclose(of_captions, captions.double(), atol=1e-9)
    assert (attention.phrases.masked_select(~queries.mask.unsqueeze(1)) == 0).all()
    assert (attention.captions.masked_select(~captions) == 0).all()
    assert torch.allclose(attention.captions.sum(-1), captions.any(-1).to(attention.captions.dtype), atol=1e-6)


def test_attention_is_what_each_objective_makes_of_regions_and_phrases():
    tensors, masks = make_items()
    pair = make_pair(tensors, masks)
    found = {name: make_objective(name)(*pair, output="attention") for name in OBJECTIVES}
    item, clip = 0, 2
    regions = tensors[2][clip][masks[3][clip]]
    cosines = regions @ tensors[0][item, 0]
    kept = masks[3][clip]
    assert torch.allclose(found["fine"].regions[item, clip, 0, kept], (SHARPNESS * cosines).softmax(0))
    best = torch.nn.functional.one_hot(cosines.argmax(), len(cosines)).double()
    assert torch.equal(found["filip"].regions[item, clip, 0, kept], best)
    for name in ("coarse", "mil_nce", "siglip"):
        assert torch.allclose(found[name].regions[item, clip, 0, kept], torch.full_like(best, 1 / len(best)))
    own = phrases_of(masks, item, 0)
    assert len(own) > 1
    for name in ("filip", "coarse", "mil_nce", "siglip"):
        assert found[name].num_phrases == found[name].phrases.shape[-1] == 4
        assert found[name].phrases[item, clip, own].tolist() == pytest.approx([1 / len(own)] * len(own))
    fine = found["fine"]  # the captions as wholes stand behind the phrases
    assert fine.num_phrases == 4 and fine.phrases.shape[-1] == 6 and fine.phrases[item, clip, own].std() > 0.01
    assert fine.phrases[item, clip, [*own, 4]].sum().item() == pytest.approx(1.0)
    whole = (SHARPNESS * regions @ tensors[1][item, 0]).softmax(0)
    assert torch.allclose(fine.regions[item, clip, 4, kept], whole)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_caption_weights_are_the_gradient_of_the_logit(name):
    """By each caption's scaled score, which a phrase of it is given as its similarity."""
    tensors, masks = make_items()
    objective, (queries, keys) = make_objective(name), make_pair(tensors, masks)
    scores = objective.scores(queries, keys).detach().requires_grad_()
    objective.scores = objective.coarse_scores = lambda queries, keys: scores
    similarity = torch.einsum("ijk,imk->ijm", scores, membership_of(queries))
    objective.phrase_similarity = lambda queries, keys: similarity
    objective.pair_logits(queries, keys).sum().backward()
    weights = objective.caption_weights(queries, keys)
    present = masks[2].any(1)
    assert torch.allclose(scores.grad[present] / math.exp(LOGIT_SCALE), weights[present].to(scores), atol=1e-6)
    assert (masks[2].sum(1) == 2).any()


@pytest.mark.parametrize("variant", OBJECTIVE_VARIANTS)
def test_padding_changes_neither_loss_nor_gradient(variant):
    outcomes = []
    for rubbish in (0.0, 1e3):
        tensors, masks = make_items()
        tensors = [
            tensors[0].masked_fill(~masks[0].unsqueeze(-1), rubbish),
            tensors[1].masked_fill(~masks[2].unsqueeze(-1), rubbish),
            tensors[2].masked_fill(~masks[3].unsqueeze(-1), rubbish),
            tensors[3].masked_fill(~masks[3].any(1, keepdim=True), rubbish),
        ]
        tensors = [tensor.requires_grad_() for tensor in tensors]
        loss = loss_of(make_objective(**OBJECTIVE_VARIANTS[variant]), tensors, masks)
        loss.backward()
        outcomes.append([loss.detach(), *(tensor.grad for tensor in tensors if tensor.grad is not None)])
    assert len(outcomes[0]) > 2
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*outcomes, strict=True))


@pytest.mark.parametrize("variant", OBJECTIVE_VARIANTS)
def test_no_item_with_both_modalities_gives_zero(variant):
    tensors, masks = make_items()
    masks = (torch.zeros_like(masks[0]), masks[1], torch.zeros_like(masks[2]), masks[3])
    tensors = [tensor.requires_grad_() for tensor in tensors]
    loss = loss_of(make_objective(**OBJECTIVE_VARIANTS[variant]), tensors, masks)
    loss.backward()
    assert float(loss) == 0
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors if tensor.grad is not None)


def test_siglip_of_one_pair_is_its_loss_and_of_none_is_zero():
    tensors, masks = make_items()
    objective = make_objective(objective="siglip")
    one, none = list(masks), list(masks)
    one[3] = masks[3].clone()
    one[3][1:] = False  # regions of the first item alone
    none[3] = masks[3].clone()
    none[3][torch.arange(5) != 1] = False  # of the one without text alone
    assert float(loss_of(objective, tensors, one)) == pytest.approx(plain_siglip(tensors, one), abs=1e-9)
    assert float(loss_of(objective, tensors, none)) == 0


def test_what_is_not_learnable_stays_so_when_weights_are_loaded(tmp_path):
    options = {
        "projection_dim": 8,
        "modalities": ["video", "text"],
        "video_config": SMALL_VIDEO,
        "text_config": SMALL_TEXT,
    }
    FgmmModel(FgmmConfig(objective="coarse", **options)).save_pretrained(tmp_path)
    config = FgmmConfig(
        learnable_sharpness=False, sharpness_init_value=3.0, learnable_phrase_sharpness=False, **options
    )
    objective = FgmmModel.from_pretrained(tmp_path, config=config).objectives["text_video"]
    assert not {"log_sharpness", "phrase_sharpness"} & dict(objective.named_parameters()).keys()
    assert float(objective.sharpness()) == pytest.approx(3.0) and float(objective.phrase_sharpness) == 0


def test_logit_scale_stays_bounded():
    objective = make_objective()
    with torch.no_grad():
        objective.logit_scale.fill_(50.0)
        objective.coarse_logit_scale.fill_(50.0)
    assert float(loss_of(objective, *make_items())) < 500
