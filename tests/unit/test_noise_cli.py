"""The noise bank as a file for other frameworks."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from reprojax.noise import main
from reprojax.sampling.noise import NoiseBank, load_noise

BANK = NoiseBank(3, 5, (4, 4, 1))
ARGUMENTS = ["export", "--seed", "3", "--n", "5", "--shape", "4,4,1", "--out"]


def test_an_npz_loads_back_as_the_bank(tmp_path, capsys):
    out = tmp_path / "z.npz"
    assert main([*ARGUMENTS, str(out)]) == 0
    assert BANK.fingerprint() in capsys.readouterr().out
    bank = load_noise(out, 5, (4, 4, 1))
    np.testing.assert_array_equal(bank.all(), BANK.all())
    with np.load(out) as data:
        assert str(data["fingerprint"]) == BANK.fingerprint() and int(data["seed"]) == 3


def test_safetensors_carry_bits_and_origin(tmp_path):
    out = tmp_path / "z.safetensors"
    assert main([*ARGUMENTS, str(out)]) == 0
    with safe_open(out, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("noise"), BANK.all())
        about = json.loads(file.metadata()["reprojax"])
    assert about["fingerprint"] == BANK.fingerprint() and about["prng"] == "threefry2x32"


def test_pt_is_pytorch_or_a_clear_no(tmp_path, capsys):
    out = tmp_path / "z.pt"
    code = main([*ARGUMENTS, str(out)])
    try:
        import torch
    except ImportError:
        assert code == 2 and "PyTorch installed" in capsys.readouterr().err and not out.exists()
    else:
        np.testing.assert_array_equal(torch.load(out)["noise"].numpy(), BANK.all())


@pytest.mark.parametrize(
    "change, word",
    [
        (["--n", "0"], "--n"),
        (["--seed", "-1"], "--seed"),
        (["--shape", "4,4"], "--shape"),
        (["--shape", "4,0,1"], "--shape"),
        (["--n", "many"], "invalid int"),
        (["--out", "z.txt"], ".npz"),
        (["--out", "/proc/no/z.npz"], "--out"),
        (["--seeds", "1"], "--seeds"),
    ],
)
def test_bad_input_is_one_line(change, word, tmp_path, capsys):
    assert main([*ARGUMENTS, str(tmp_path / "z.npz"), *change]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and word in err
    assert not list(tmp_path.iterdir())
