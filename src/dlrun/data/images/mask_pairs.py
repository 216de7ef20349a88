"""Find images and their masks, which have the same names, and the splits that are folders."""

from pathlib import Path

from dlrun.data.walk import IMAGE_SUFFIXES, described, folders, split_folders, walk
from dlrun.errors import DataError, counted, some


def mask_splits(source: Path, images: str, masks: str) -> tuple[dict[str, list[tuple[Path, Path]]], str]:
    """Return the pairs of each split, or all pairs as train, and a description of the splits that are folders."""
    hint = f"or name the folders, such as data.images={images}/one"
    if not (source / images).is_dir():
        outer = [name for name in folders(source) if (source / name / images).is_dir()]
        if folder_of := split_folders(source, outer, hint):
            pairs = {split: _pairs(source / name / images, source / name / masks) for split, name in folder_of.items()}
            return pairs, described(folder_of)
    whole = _pairs(source / images, source / masks)
    parts = [image.relative_to(source / images).parts for image, _ in whole]
    top = {part[0] for part in parts} if all(len(part) > 1 for part in parts) else set()
    folder_of = split_folders(source / images, sorted(top), hint)
    if not folder_of:
        return {"train": whole}, ""
    inside = {name: [pair for pair, part in zip(whole, parts, strict=True) if part[0] == name] for name in top}
    return {split: inside[name] for split, name in folder_of.items()}, described(folder_of)


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pair images with masks by name. Raises DataError if one has no partner."""
    by_folder = []
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(
                f"there is no folder {folder}\n  expected images in {images} and masks in {masks};\n"
                "  data.root, data.images and data.masks name others"
            )
        files = [Path(name) for name in walk(folder, IMAGE_SUFFIXES)]
        if not files:
            raise DataError(
                f"{folder} has no images\n  expected a folder of {', '.join(IMAGE_SUFFIXES)}\n"
                "  put them there, or set data.root, data.images, data.masks"
            )
        by_name: dict[str, Path] = {}
        for path in files:
            name = path.with_suffix("").as_posix()
            if name in by_name:
                raise DataError(f"{by_name[name]} and {path.name} have the same name: expected one file for each name")
            by_name[name] = folder / path
        by_folder.append(by_name)
    for this, other, kind in ((0, 1, "mask"), (1, 0, "image")):
        alone = sorted(by_folder[this].keys() - by_folder[other].keys())
        if alone:
            raise DataError(
                f"no {kind} for {counted(len(alone), 'file')}: {some([str(by_folder[this][name]) for name in alone])}\n"
                f"  expected an image in {images} and a mask in {masks} for each name; suffixes may differ"
            )
    return [(path, by_folder[1][name]) for name, path in by_folder[0].items()]
