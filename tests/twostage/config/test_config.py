"""Recipes: what is accepted, what is refused and in which words, and that nothing is lost on disk and back."""

import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twostage.config.check import check_recipe
from twostage.config.limits import LIMITS
from twostage.config.load import dump_recipe, load_recipe, load_run_recipe, parse_recipe, recipe_names, shipped_text
from twostage.config.model_names import baseline_beta, baseline_name, check_model, model_spec
from twostage.config.quantiser import QUANTISERS
from twostage.config.schema import DataConfig, PriorConfig, QuantiserConfig, Recipe, TrainingConfig
from twostage.data import load_dataset
from twostage.errors import RunError, UsageError
from twostage_pipelines.modality.images import stage1_architecture


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, source="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_shipped_recipe_is_valid_and_named_after_its_file(name: str) -> None:
    assert name in recipe_names()
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.name == name
    assert shipped_text(name).startswith(f"# twostage train {name}")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_dump_is_complete_and_gives_the_same_recipe(name: str) -> None:
    recipe = load_recipe(name)
    text = dump_recipe(recipe)
    assert parse_recipe(text, source="dump") == recipe
    # Complete: a later change of the schema's defaults must not change an old run.
    for section in ("stage1", "quantiser", "prior", "evaluation"):
        assert f"[{section}]" in text
        for item in fields(getattr(recipe, section)):
            assert f"\n{item.name} = " in text
    assert "path" not in text


@given(
    path=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    rate=st.floats(min_value=0, exclude_min=True, max_value=1e18),
    decay=st.floats(min_value=0, max_value=1, exclude_max=True),
    steps=st.integers(1, 2**31 - 1),
    conditional=st.booleans(),
)
def test_any_valid_recipe_survives_the_round_trip(
    path: str | None, rate: float, decay: float, steps: int, conditional: bool
) -> None:
    recipe = Recipe(
        name="x-1.2_y",
        models=("vae", "beta-vae-0.5"),
        data=DataConfig(name="mnist", path=path),
        quantiser=QuantiserConfig(decay=decay),
        prior=PriorConfig(conditional=conditional),
        prior_training=TrainingConfig(steps=steps, learning_rate=rate),
    )
    assert parse_recipe(dump_recipe(recipe), source="dump") == recipe


def test_optional_settings_default_to_none() -> None:
    """None is written by leaving the key out, so reading it back must give None again."""

    def walk(config: Any) -> None:
        hints = get_type_hints(type(config))
        for item in fields(config):
            value = getattr(config, item.name)
            if is_dataclass(value):
                walk(value)
            elif type(None) in getattr(hints[item.name], "__args__", ()):
                assert value is None, item.name

    walk(Recipe())


def test_every_number_has_a_limit_that_admits_its_default() -> None:
    def walk(config: Any) -> int:
        hints, count = get_type_hints(type(config)), 0
        for item in fields(config):
            value = getattr(config, item.name)
            if is_dataclass(value):
                count += walk(value)
            elif hints[item.name] in (int, float):
                assert LIMITS[type(config)][item.name].admits(value), item.name
                count += 1
        assert set(LIMITS.get(type(config), {})) <= {item.name for item in fields(config)}
        return count

    assert walk(Recipe()) > 40


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[prior]\nchanels = 3", ["unknown key prior.chanels", "= 3", "Did you mean prior.channels?"]),
        ("[priors]\nlayers = 3", ["unknown key priors", "Did you mean prior"]),
        ("[prior]\nsteps = 3", ["unknown key prior.steps", "prior_training.steps"]),
        ("zzz = 1", ["unknown key zzz (= 1)."]),
        ("prior = 3", ["prior must be a table", "but is 3"]),
        ('[prior_training]\nsteps = "5"', ["prior_training.steps must be a whole number", 'but is "5"']),
        ("seed = 1.0", ["seed must be a whole number", "1.0"]),
        ("threads = true", ["threads must be a whole number", "true"]),
        ("[prior]\nconditional = 1", ["prior.conditional must be true or false", "but is 1"]),
        ('[data]\nname = "mnits"', ["data.name must be one of", '"mnits"', "Did you mean mnist?"]),
        ("[stage1]\ndownsampling = 3", ["stage1.downsampling must be one of 2, 4, 8, 16, 32", "but is 3"]),
        ("[data]\npath = 2020-01-01", ["data.path must be a string", "2020-01-01"]),
        ('models = "vae"', ["models must be a list of strings"]),
        ('[quantiser]\nkind = "fsq"\nfsq_levels = "8"', ["quantiser.fsq_levels must be a list of whole numbers"]),
        ("models = []", ["models must name at least one model"]),
        ('models = ["vae", "vae"]', ["every model once"]),
        ('models = ["vqvae"]', ["models", "'vqvae'", "Did you mean vq-vae"]),
        ('models = ["beta-vae-0"]', ["beta-vae-B with B > 0"]),
        ("a = \nb = 1", ["not valid TOML", "line 1"]),
        ('name = "../up"', ["name must be made of letters", "'../up'"]),
        ("seed = -1", ["seed must be at least 0 and at most 4294967295", "-1"]),
        ("[codebook_training]\nsteps = 0", ["codebook_training.steps must be at least 1", "but is 0"]),
        ("[codebook_training]\nlearning_rate = nan", ["learning_rate must be more than 0", "nan"]),
        ("[codebook_training]\nlearning_rate = inf", ["learning_rate must be more than 0", "inf"]),
        ("[codebook_training]\nlearning_rate = 1e38", ["learning_rate must be more than 0 and at most 1e+18", "1e+38"]),
        ("[prior_training]\nweight_decay = 1e38", ["weight_decay must be at least 0 and at most 1e+18", "1e+38"]),
        ("[codebook_training]\nsteps = 5\nwarmup_steps = 6", ["warmup_steps must be at most", "(5)", "6"]),
        ("[quantiser]\ndecay = 1.0", ["quantiser.decay must be at least 0 and less than 1", "1.0"]),
        ("[quantiser]\ncodebooks = 3", ["embedding_dim must be a multiple of quantiser.codebooks (3)", "64"]),
        ("[prior]\nkernel = 4", ["prior.kernel must be odd", "4"]),
        ('[gaussian]\nnetwork = "mlp"', ["gaussian.network mlp", "gaussian.latent_dim must be at least 1"]),
        ("[gaussian]\nfree_bits = -1.0", ["gaussian.free_bits must be at least 0", "-1.0"]),
        ("[vimco]\nsamples = 1", ["vimco.samples must be at least 2", "but is 1"]),
    ],
)
def test_refusal_names_key_value_and_remedy(text: str, parts: list[str]) -> None:
    message = refusal(text)
    for part in parts:
        assert part in message


def test_whole_number_is_taken_for_a_float_and_name_defaults_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[codebook_training]\nlearning_rate = 1\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert isinstance(recipe.codebook_training.learning_rate, float)


@pytest.mark.parametrize(
    ("given_name", "parts"),
    [
        ("digit", ["'digit'", "cifar10, cifar10-small, digits", "Did you mean digits?"]),
        ("recipes/mnsit.toml", ["recipes/mnsit.toml", "Did you mean mnist?"]),
        (".", ["is a folder"]),
    ],
)
def test_unknown_recipe_is_refused_with_near_matches(given_name: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(given_name)
    for part in parts:
        assert part in str(caught.value)


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.toml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_recipe(path)


def test_run_recipe_tells_a_wrong_folder_from_a_damaged_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist.*twostage train-codebook"):
        load_run_recipe(tmp_path / "none")
    with pytest.raises(UsageError, match=r"has no config\.toml"):
        load_run_recipe(tmp_path)
    recipe = load_recipe("digits")
    (tmp_path / "config.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_run_recipe(tmp_path) == recipe
    (tmp_path / "config.toml").write_text("seed = 'x", encoding="utf-8")
    with pytest.raises(RunError, match="damaged"):
        load_run_recipe(tmp_path)


@pytest.mark.parametrize(("beta", "name"), [(1.0, "vae"), (4.0, "beta-vae-4"), (0.5, "beta-vae-0.5")])
def test_baseline_name_and_beta_are_inverse(beta: float, name: str) -> None:
    assert baseline_name(beta) == name
    assert baseline_beta(name) == beta
    check_model(name, source="test")


@pytest.mark.parametrize("name", ["beta-vae-4.0", "beta-vae-1", "beta-vae--1", "beta-vae-nan", "vae-2", ""])
def test_model_has_one_spelling(name: str) -> None:
    with pytest.raises(UsageError):
        check_model(name, source="test")


def test_check_recipe_names_the_source() -> None:
    with pytest.raises(UsageError, match=r"^command line: threads must be at least 0 and at most 256, but is -1\.$"):
        check_recipe(Recipe(threads=-1), source="command line")


def test_schema_and_checks_import_neither_pydantic_nor_torch() -> None:
    code = (
        "import sys, twostage.config.load, twostage.config.check; twostage.config.load.recipe_names();"
        "print({'torch', 'numpy', 'pydantic', 'tyro', 'tomli_w'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('kind = "rvq"', ["quantiser.kind must be one of", '"rvq"']),
        (
            "fsq_levels = [4, 4]",
            ["fsq_levels is not read by quantiser.kind vq", "(4, 4)", "set it back to (8, 5, 5, 5)"],
        ),
        ('kind = "fsq"\ncodebook_size = 9', ["codebook_size is not read by quantiser.kind fsq", "set it back to 512"]),
        ('kind = "fsq"\nupdate = "loss"', ["quantiser.update is not read by quantiser.kind fsq, but is 'loss'"]),
        ("quantiser_dropout = 0.5", ["quantiser_dropout is not read by quantiser.kind vq", "set it back to 0.0"]),
        ('kind = "residual"\ncodebooks = 0', ["quantiser.codebooks must be at least 1", "but is 0"]),
        ('kind = "residual"', ["quantiser.kind residual with a single level is the kind vq", "which is 1"]),
        ('kind = "residual"\ncodebooks = 2\nquantiser_dropout = 1.5', ["quantiser_dropout must be", "at most 1"]),
        ("rate_weight = -0.5", ["quantiser.rate_weight must be", "but is -0.5"]),
        ('kind = "fsq"\nrate_weight = 0.1', ["rate_weight is not read by quantiser.kind fsq", "set it back to 0.0"]),
        ('kind = "simvq"\nrate_weight = 0.1', ["rate_weight is not read by quantiser.kind simvq"]),
        ("code_dim = 8", ["code_dim is not read by quantiser.kind vq", "set it back to 32"]),
        ('kind = "cosine"\ncode_dim = 1', ["quantiser.code_dim must be at least 2", "but is 1"]),
        ('kind = "simvq"\nrevival_threshold = 0.5', ["revival_threshold is not read by quantiser.kind simvq"]),
        ('kind = "simvq"\ncodebooks = 3', ["embedding_dim must be a multiple of quantiser.codebooks (3)"]),
        ('kind = "fsq"\nfsq_levels = [4, 1]', ["fsq_levels must be at least 2 in every channel", "(4, 1)"]),
        ('kind = "fsq"\nfsq_levels = []', ["fsq_levels must be at least 2 in every channel"]),
        ('kind = "fsq"\nfsq_levels = [4, 3]\ncodebooks = 2', ["the same number of codes", "give 3 or 4"]),
        (f'kind = "fsq"\nfsq_levels = {[99] * 9999}', ["at most 65536", "in 1 codebooks give more"]),
        ('kind = "fsq"\nfsq_levels = [5, 5, 5]\ncodebooks = 2', ["quantiser.codebooks (2) divides"]),
    ],
)
def test_settings_of_another_quantiser_and_levels_that_fit_none_are_refused(text: str, parts: list[str]) -> None:
    message = refusal(f'models = ["vq-vae"]\n[quantiser]\n{text}')
    for part in parts:
        assert part in message


def test_models_and_searches_that_need_a_learned_codebook_are_refused_without_one() -> None:
    assert "models: vq-vae-loss says how a codebook learns" in refusal('[quantiser]\nkind = "fsq"')
    with pytest.raises(UsageError, match="model: vq-vae-ema says how a codebook learns"):
        model_spec("vq-vae-ema", Recipe(quantiser=QuantiserConfig(kind="simvq")))
    searched = 'models = ["vq-vae"]\n[quantiser]\nkind = "fsq"\n[evaluation]\nsearch_items = 3'
    assert "evaluation.search_items searches among near vectors" in refusal(searched)


def test_every_quantiser_reads_settings_that_there_are_and_says_what_it_needs() -> None:
    """VIMCO reads sizes of a codebook whatever the quantiser."""
    names = {item.name for item in fields(QuantiserConfig)}
    for kind, facts in QUANTISERS.items():
        assert set(facts.reads) < names
        config = QuantiserConfig(kind=kind)
        arguments = config.arguments(update="loss")
        assert arguments.keys() == {"quantiser", "embedding_dim", *facts.reads} - {"init"}
        assert config.update_rule == ("ema" if "update" in facts.reads else facts.update)
        assert model_spec("vq-vae", Recipe(quantiser=config)).codebook_update == config.update_rule
        assert config.starts_from_data == ("init" in facts.reads)


def test_vimco_has_as_many_codes_as_the_levels_of_fsq_give() -> None:
    text = 'models = ["vq-vae", "vimco"]\n[quantiser]\nkind = "fsq"\nfsq_levels = [4, 3]\n'
    recipe = parse_recipe(text, source="mine.toml")
    assert recipe.quantiser.size == 12
    spec, digits = model_spec("vimco", recipe), load_dataset(DataConfig(name="digits"))
    assert stage1_architecture(spec, recipe, digits)["codebook_size"] == 12
    with pytest.raises(UsageError, match=r"codebook_size is not read by quantiser.kind fsq"):
        parse_recipe(f"{text}codebook_size = 9", source="mine.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[data]\nname = "mnist"\n[audio]\nchannels = 64\n',
            "audio.channels is a setting of sound, but",
        ),
        ('[data]\nname = "vowels"\n[stage1]\nchannels = 64\n', "stage1.channels is a setting of images"),
        ('[data]\nname = "vowels"\nhorizontal_flips = true\n', "data.horizontal_flips is a setting of images"),
        ('[data]\nname = "vowels"\n[evaluation]\nsearch_items = 3\n', "evaluation.search_items is a setting of images"),
        ('[data]\nname = "mnist"\n[evaluation]\nsampled_items = 3\n', "evaluation.sampled_items is a setting of sound"),
        ('[data]\nname = "vowels"\n[gaussian]\nlatent_dim = 3\n', "gaussian.latent_dim is a setting of images"),
        ('[data]\nname = "vowels"\n[vimco]\nsamples = 3\n', "vimco.samples is a setting of images"),
        ('models = ["vimco"]\n[data]\nname = "vowels"\n', "vimco is no model of recordings"),
        ('[data]\nname = "vowels"\n[recordings]\nsample_rate_hz = 16000\n', "says how a folder is read"),
        (
            '[data]\nname = "vowels"\n[wavenet_decoder]\nlikelihood = "mu-law"\ncoarse_bits = 8\n',
            "wavenet_decoder.coarse_bits are bits of 16",
        ),
        ('[data]\nname = "vowels"\n[audio]\nsegment_samples = 1000\n', "a multiple of the 64 samples of a code"),
        ('[data]\nname = "vowels"\n[audio]\ndownsampling_layers = 8\n', "audio.downsampling_layers must be"),
        (
            '[data]\nname = "vowels"\n[wavenet_prior]\nconditional = false\nlabel_dropout = 0.1\n',
            "wavenet_prior.label_dropout hides labels",
        ),
        ("[prior]\nlayers = 3\nattention_every = 3\n", "prior.attention_every must be below its 3 gated layers"),
        (
            '[data]\nname = "vowels"\n[wavenet_prior]\nblocks = 2\nlayers_per_block = 2\nattention_every = 4\n',
            "wavenet_prior.attention_every must be below its 4 gated layers",
        ),
        ("[prior]\nattention_heads = 0\n", "prior.attention_heads must be at least 1"),
        ('models = ["vae", "vimco"]\n[stage1]\nhierarchy = 2\n', "stage1.hierarchy is of a VQ-VAE, which models does"),
        ('[data]\nname = "vowels"\n[stage1]\nhierarchy = 2\n', "stage1.hierarchy is a setting of images"),
    ],
)
def test_settings_of_the_other_kind_of_data_are_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_sounds_have_the_baselines_of_images_and_their_kl_weight() -> None:
    text = (
        'models = ["ae", "vae", "beta-vae-4", "cvae"]\n[data]\nname = "vowels"\n'
        "[gaussian]\nkl_warmup_steps = 5\nfree_bits = 0.1\n"
    )
    assert parse_recipe(text, source="mine.toml").gaussian.free_bits == 0.1
