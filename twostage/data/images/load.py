"""Load the image data set that a recipe names."""

from dataclasses import fields, replace

from twostage.config.image_size import sides_of
from twostage.config.load import user_path
from twostage.config.schema import DataConfig
from twostage.data.images.dataset import ImageDataset
from twostage.errors import UsageError

_FOLDER_SETTINGS = ("image_size", "fit", "colour", "bits", "train_folder", "test_folder", "skip_unreadable")


def load_dataset(config: DataConfig) -> ImageDataset:
    """Read the configured data set into memory; what is downloaded once is read from the cache after that.

    Raises:
        UsageError: the settings do not fit together (no folder for `images`, a folder for `digits`, a setting of
            folders with another data set).
        DataError: a file is missing, damaged or not what its name says, or cannot be downloaded.
    """
    if config.path is not None:
        config = replace(config, path=str(user_path(config.path)))
    dataset = _read(config)
    if config.binarise == "none":
        return dataset
    from twostage.data.images.binarise import binarised

    return binarised(dataset, mode=config.binarise)


def _read(config: DataConfig) -> ImageDataset:
    if config.name != "arrays" and config.levels:
        raise UsageError(
            f"data.levels is for arrays, but data.name is {config.name} and data.levels is {config.levels}: "
            "leave it out"
        )
    # Readers are imported here because scikit-learn alone takes a second or two.
    if config.name == "images":
        from twostage.data.images.folder import load_folder

        return load_folder(
            config.path,
            size=sides_of(config.image_size),
            fit=config.fit,
            colour=config.colour,
            bits=config.bits,
            train_folder=config.train_folder,
            test_folder=config.test_folder,
            skip_unreadable=config.skip_unreadable,
        )
    for setting in fields(config):
        value = getattr(config, setting.name)
        if setting.name in _FOLDER_SETTINGS and value != setting.default:
            raise UsageError(
                f"data.{setting.name} is for folders of images, but data.name is {config.name} and "
                f"data.{setting.name} is {value!r}: leave it out or set data.name to images"
            )
    if config.name == "arrays":
        from twostage.data.images.stacks import load_arrays

        return load_arrays(config.path, levels=config.levels)
    if config.name in ("digits", "shapes"):
        if config.path is not None:
            raise UsageError(
                f"the data set {config.name} is built in and reads no folder, but data.path is {config.path!r}: "
                "leave data.path out or set data.name to another data set"
            )
        if config.name == "shapes":
            from twostage.data.images.shapes import load_shapes

            return load_shapes()
        from twostage.data.images.digits import load_digits

        return load_digits()
    if config.name == "cifar10":
        from twostage.data.images.cifar import load_cifar10

        return load_cifar10(config.path)
    from twostage.data.images import idx

    return idx.load_mnist(config.path) if config.name == "mnist" else idx.load_fashion_mnist(config.path)
