import math
import os

import pytest
import torch
import torch.distributed as dist
from helpers import run_processes

from modeling_fgmm import FgmmConfig, FgmmModel
from modeling_fgmm.loss_fgmm import OBJECTIVES, PairObjective
from modeling_fgmm.scoring_fgmm import Keys, Queries

SHARPNESS, DELTA, LOGIT_SCALE, BIAS = 5.0, 1.5, 2.0, -3.0
WHOLE = 0.3  # weight of the caption as a whole
SMALL_VIDEO = {"width_multiplier": 0.125, "depths": [1]}
SMALL_TEXT = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 16}
GATE = torch.linspace(-0.2, 0.3, 8, dtype=torch.float64)


# Every objective, and every option of the fine one.
VARIANTS = {
    "fine": {},
    "regions ask": {"attention_direction": "regions_to_text"},
    "both ask": {"attention_direction": "both", "posterior_weights": True},
    "phrases as the bag": {"contrast_unit": "phrase"},
    "each phrase": {"contrast_unit": "phrase", "contrast_bag": False},
    "each phrase, posterior": {"contrast_unit": "phrase", "contrast_bag": False, "posterior_weights": True},
    "each caption": {"contrast_bag": False},
    "without gates": {"phrase_gates": False},
    "fixed": {"learnable_sharpness": False, "learnable_phrase_sharpness": False},
    **{name: {"objective": name} for name in ("coarse", "mil_nce", "filip", "siglip")},
    **{f"{name}, robust": {"objective": name, "gce_q": 0.4} for name in ("fine", "coarse", "mil_nce", "filip")},
}


def make_objective(**options) -> PairObjective:
    config = FgmmConfig(coarse_loss_weight=0.3, whole_caption_weight=WHOLE, projection_dim=len(GATE), **options)
    objective = OBJECTIVES[config.objective](config).double()
    values = {"log_sharpness": math.log(SHARPNESS), "phrase_sharpness": DELTA, "logit_bias": BIAS}
    with torch.no_grad():
        for name, parameter in (*objective.named_parameters(), *objective.named_buffers()):
            parameter.fill_(values.get(name, LOGIT_SCALE))
            if name == "phrase_gate":
                parameter.copy_(GATE)
    return objective


def make_items(number=5, num_phrases=4, num_captions=2, num_regions=6, dim=8):
    """Random items: the second has no text, the fourth no regions, some captions are missing."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    mask = torch.rand(number, num_phrases, generator=generator) < 0.8
    mask[:, 0], mask[1] = True, False
    captions = torch.randint(0, num_captions, (number, num_phrases), generator=generator).masked_fill(~mask, 0)
    belongs = torch.nn.functional.one_hot(captions, num_captions).bool() & mask.unsqueeze(-1)
    region_mask = torch.rand(number, num_regions, generator=generator) < 0.8
    region_mask[:, 0], region_mask[3] = True, False
    tensors = [
        unit(number, num_phrases, dim),
        unit(number, num_captions, dim),
        unit(number, num_regions, dim),
        unit(number, dim),
    ]
    return tensors, (mask, captions, belongs.any(1), region_mask)


def loss_of(objective, tensors, masks, rows=slice(None)):
    phrases, caption_embeds, regions, embeds = (tensor[rows] for tensor in tensors)
    mask, captions, caption_mask, region_mask = (tensor[rows] for tensor in masks)
    return objective(Queries(phrases, mask, captions, caption_embeds, caption_mask), Keys(regions, region_mask, embeds))


def attended(query, regions) -> torch.Tensor:
    cosines = regions @ query
    return ((SHARPNESS * cosines).softmax(0) * cosines).sum()


def phrases_of(masks, i, k) -> list[int]:
    return [m for m in range(masks[0].shape[1]) if masks[0][i, m] and masks[1][i, m] == k]


def caption_asks(tensors, masks, i, k, j) -> torch.Tensor:
    """Caption k of item i over the regions of clip j: its phrases, weighted by their gates, and the whole."""
    regions = tensors[2][j][masks[3][j]]
    phrases = [tensors[0][i, m] for m in phrases_of(masks, i, k)]
    scores = [attended(phrase, regions) for phrase in phrases]
    weights = [torch.exp(DELTA * score + 10.0 * phrase @ GATE) for score, phrase in zip(scores, phrases, strict=True)]
    of_phrases = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
    return (1 - WHOLE) * of_phrases + WHOLE * attended(tensors[1][i, k], regions)


def regions_ask(tensors, masks, i, k, j) -> torch.Tensor:
    """The regions of clip j over the phrases of caption k of item i."""
    phrases = tensors[0][i, phrases_of(masks, i, k)]
    scores = [attended(region, phrases) for region in tensors[2][j][masks[3][j]]]
    weights = [torch.exp(DELTA * score) for score in scores]
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


def both_ask(*arguments) -> torch.Tensor:
    return (caption_asks(*arguments) + regions_ask(*arguments)) / 2


def phrase_asks(tensors, masks, i, m, j) -> torch.Tensor:
    return attended(tensors[0][i, m], tensors[2][j][masks[3][j]])


def pooled(tensors, masks, i, k, j) -> torch.Tensor:
    return tensors[1][i, k] @ tensors[3][j]


def plain_contrast(tensors, masks, score, unit_mask, posterior=False) -> torch.Tensor:
    """MIL-NCE with loops: units of an item share the numerator, both directions, over what is there."""
    with_regions = [j for j in range(len(masks[3])) if masks[3][j].any()]
    with_text = [i for i in range(len(unit_mask)) if unit_mask[i].any()]
    scaled = math.exp(LOGIT_SCALE)
    power = {
        (i, j): sum(torch.exp(scaled * score(tensors, masks, i, int(u), j)) for u in unit_mask[i].nonzero())
        for i in with_text
        for j in with_regions
    }
    terms = torch.stack(
        [
            -0.5 * torch.log(power[i, i] / sum(power[other, i] for other in with_text))
            - 0.5 * torch.log(power[i, i] / sum(power[i, other] for other in with_regions))
            for i in with_text
            if i in with_regions
        ]
    )
    weights = torch.exp(-terms).detach() if posterior else torch.ones_like(terms)
    return (terms * weights / weights.mean()).mean()  # weights of mean 1


def plain_loss(tensors, masks, score=caption_asks, posterior=False) -> torch.Tensor:
    """The objective of the design with loops over items, captions or phrases, and regions."""
    units = masks[0] if score is phrase_asks else masks[2]
    fine = plain_contrast(tensors, masks, score, units, posterior)
    return fine + 0.3 * plain_contrast(tensors, masks, pooled, masks[2], posterior)


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({}, caption_asks),
        ({"attention_direction": "regions_to_text"}, regions_ask),
        ({"attention_direction": "both"}, both_ask),
        ({"contrast_unit": "phrase"}, phrase_asks),
    ],
)
@pytest.mark.parametrize("posterior", [False, True])
def test_loss_is_that_of_the_design(options, score, posterior):
    """In value, and in gradient: none flows through the posterior weights."""
    tensors, masks = make_items()
    tensors = [tensor.requires_grad_() for tensor in tensors]
    loss = loss_of(make_objective(posterior_weights=posterior, **options), tensors, masks)
    expected = plain_loss(tensors, masks, score, posterior)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    gradients = [torch.autograd.grad(value, tensors, allow_unused=True) for value in (loss, expected)]
    for gradient, right in zip(*gradients, strict=True):
        assert right.abs().max() > 1e-3 and torch.allclose(gradient, right, atol=1e-9)


def test_posterior_weights_favour_pairs_that_look_right():
    """Well-explained items count for more, so that the mean falls."""
    tensors, masks = make_items()
    plain = loss_of(make_objective(), tensors, masks)
    weighted = loss_of(make_objective(posterior_weights=True), tensors, masks)
    assert float(weighted) < float(plain)


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
def test_robustness_is_generalised_cross_entropy(gce_q):
    """(1 - p^q) / q of the probability of the right clip, and of the right text; for q near 0 this is -log p."""
    tensors, masks = make_items()
    logits, has_text, has_clip, both = mean_caption_cosines(tensors, masks)
    power = (math.exp(LOGIT_SCALE) * logits).exp()
    among_clips = [float(power[i, i] / power[i][has_clip].sum()) for i in both]
    among_texts = [float(power[i, i] / power[has_text, i].sum()) for i in both]
    terms = [(1 - p**gce_q) / gce_q for p in among_clips + among_texts]
    loss = float(loss_of(make_objective(objective="coarse", gce_q=gce_q), tensors, masks))
    assert loss == pytest.approx(sum(terms) / len(terms), abs=1e-8)
    if gce_q < 0.1:
        assert loss == pytest.approx(plain_coarse(tensors, masks), abs=1e-4)


def test_each_phrase_is_its_own_positive():
    """Per-phrase contrast, with loops: a phrase among clips, and a clip among it and others' phrases."""
    tensors, masks = make_items()
    phrases, _, regions, _ = tensors
    mask, _, _, region_mask = masks
    objective = make_objective(contrast_unit="phrase", contrast_bag=False)
    objective.config.coarse_loss_weight = 0.0
    similarity = {}
    for i, m in mask.nonzero().tolist():
        for j in range(len(regions)):
            if region_mask[j].any():
                cosines = regions[j][region_mask[j]] @ phrases[i, m]
                similarity[i, m, j] = math.exp(LOGIT_SCALE) * float(((SHARPNESS * cosines).softmax(0) * cosines).sum())
    terms = []
    for item in (i for i in range(len(mask)) if mask[i].any() and region_mask[i].any()):
        own = [m for m in range(mask.shape[1]) if mask[item, m]]
        others = sum(math.exp(v) for (i, _, j), v in similarity.items() if j == item and i != item)
        for m in own:
            value = similarity[item, m, item]
            clips = sum(math.exp(v) for (i, n, _), v in similarity.items() if (i, n) == (item, m))
            term = 0.5 * (math.log(clips) + math.log(math.exp(value) + others)) - value
            terms.append((term, 1 / len(own)))
    expected = sum(term * weight for term, weight in terms) / sum(weight for _, weight in terms)
    assert float(loss_of(objective, tensors, masks)) == pytest.approx(expected, abs=1e-9)


def test_one_caption_an_item_is_symmetric_infonce():
    tensors, masks = make_items(num_captions=1)
    masks = (masks[0], torch.zeros_like(masks[1]), masks[2], masks[3])
    kept = [0, 2, 4]
    tensors, masks = [tensor[kept] for tensor in tensors], [mask[kept] for mask in masks]
    objective = make_objective()
    queries = Queries(tensors[0], masks[0], masks[1], tensors[1], masks[2])
    keys = Keys(tensors[2], masks[3], tensors[3])
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
    keys = Keys(tensors[2], masks[3], tensors[3])
    logits = objective.logits(Queries(tensors[0], masks[0], masks[1], tensors[1], masks[2]), keys)
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
            score = caption_asks if name == "fine" else pooled
            scores = [scaled * score(tensors, masks, i, k, j) for k in captions]
            expected = torch.stack(scores).exp().mean().log()
        assert logits[i, j].item() == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
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
        loss = loss_of(make_objective(**VARIANTS[variant]), tensors, masks)
        loss.backward()
        outcomes.append([loss.detach(), *(tensor.grad for tensor in tensors if tensor.grad is not None)])
    assert len(outcomes[0]) > 2
    assert all(torch.equal(clean, dirty) for clean, dirty in zip(*outcomes, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_item_with_both_modalities_gives_zero(variant):
    tensors, masks = make_items()
    masks = (torch.zeros_like(masks[0]), masks[1], torch.zeros_like(masks[2]), masks[3])
    tensors = [tensor.requires_grad_() for tensor in tensors]
    loss = loss_of(make_objective(**VARIANTS[variant]), tensors, masks)
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


def run_process(rank: int, world: int, port: int, bounds: list[int], folder: str) -> None:
    """One of several processes: its rows' losses, and the gradients that DistributedDataParallel would average."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    rows = slice(bounds[rank], bounds[rank + 1])
    torch.save({name: loss_and_gradients(options, rows) for name, options in VARIANTS.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def loss_and_gradients(options: dict, rows=slice(None)):
    tensors, masks = make_items()
    mine = [tensor[rows].clone().requires_grad_() for tensor in tensors]
    objective = make_objective(**options)
    loss = loss_of(objective, mine, [mask[rows] for mask in masks])
    loss.backward()
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in parameters)  # else DistributedDataParallel would wait
    return loss.detach(), [tensor.grad for tensor in mine], [parameter.grad for parameter in parameters]


# Two processes, three of uneven share, a process that has no text, one that has no regions.
@pytest.mark.parametrize("bounds", [[0, 3, 5], [0, 2, 4, 5], [0, 1, 2, 5], [0, 3, 4, 5]])
def test_several_processes_equal_one(tmp_path, bounds):
    parts = run_processes(run_process, bounds, tmp_path)
    world = len(parts)
    for name, options in VARIANTS.items():
        loss, inputs, parameters = loss_and_gradients(options)
        assert all(gradient.abs().min() > 0 for gradient in parameters)
        shares = [part[name] for part in parts]
        assert float(sum(share[0] for share in shares)) / world == pytest.approx(float(loss), abs=1e-9), name
        for index, gradient in enumerate(inputs):
            if gradient is not None:
                gathered = torch.cat([share[1][index] for share in shares]) / world
                assert torch.allclose(gathered, gradient, atol=1e-9), name
        for index, gradient in enumerate(parameters):
            assert torch.allclose(sum(share[2][index] for share in shares) / world, gradient, atol=1e-9), name
