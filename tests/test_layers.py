import torch

from modeling_fgmm.layers_fgmm import evaluation_mode, masked_mean


def test_masked_mean():
    features = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, False, True], [False] * 3])
    assert torch.allclose(masked_mean(features, mask.unsqueeze(-1), 1)[0], features[0, [0, 2]].mean(0))
    assert (masked_mean(features, mask.unsqueeze(-1), 1)[1] == 0).all()


def test_evaluation_mode_is_undone_module_by_module():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout()))
    module[1][0].eval()
    modes = {name: part.training for name, part in module.named_modules()}
    try:
        with evaluation_mode(module):
            assert not any(part.training for part in module.modules())
            raise KeyError
    except KeyError:
        assert {name: part.training for name, part in module.named_modules()} == modes
    assert len(set(modes.values())) == 2
