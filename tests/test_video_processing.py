import io

import numpy as np
import pytest
import torch
from helpers import write_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from processing_fgmm import FgmmImageProcessor, FgmmVideoProcessor
from processing_fgmm.media_fgmm import MediaError
from processing_fgmm.video_processing_fgmm import uniform_indices


@pytest.fixture
def video_processor(processor):
    """4 frames, the shorter side 32 pixels, crops of 32 x 32."""
    return processor.video_processor


@pytest.fixture
def image():
    """(40, 56, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def pixels(video_processor, videos, **options):
    return video_processor(videos, **options)["pixel_values_videos"]


def image_pixels(video_processor, images, **options):
    return video_processor.preprocess_images(images, **options)["pixel_values_videos"]


def test_every_kind_of_video_gives_the_same_pixels(video_processor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", seconds=0.4, size=(32, 32), rate=10)
    expected = pixels(video_processor, [path])
    assert expected.shape == (1, 4, 3, 32, 32)
    frames = video_processor.load_frames(str(path), 4)
    kinds = [
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        frames,
        frames.numpy(),
        frames.permute(0, 2, 3, 1).numpy(),
        frames.double() / 255,
        frames.half() / 255,
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames],
    ]
    for kind in kinds:
        assert torch.allclose(pixels(video_processor, [kind]), expected, atol=1e-6)


def test_every_kind_of_image_gives_the_same_pixels(video_processor, image, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(image).save(path)
    expected = image_pixels(video_processor, [path])
    assert expected.shape == (1, 1, 3, 32, 32)
    data = path.read_bytes()
    for kind in (
        Image.fromarray(image),
        image,
        image.transpose(2, 0, 1),
        torch.from_numpy(image),
        str(path),
        data,
        io.BytesIO(data),
        {"bytes": data, "path": "photo.png"},
    ):
        assert torch.allclose(image_pixels(video_processor, kind), expected)


def test_images_beside_videos_are_repeated_and_missing_items_masked(video_processor, image, tmp_path):
    path = write_video(tmp_path / "clip.mp4", seconds=0.4)
    batch = video_processor([path, image, None])
    assert batch["pixel_values_videos"].shape == (3, 4, 3, 32, 32)
    assert batch["video_mask"].tolist() == [True, True, False] and not batch["pixel_values_videos"][2].any()
    alone = image_pixels(video_processor, image)[0]
    assert torch.equal(batch["pixel_values_videos"][1], alone.expand(4, -1, -1, -1))


def test_a_list_of_frames_alone_is_one_clip(video_processor, image):
    assert pixels(video_processor, [image, image, image]).shape[:2] == (1, 4)
    assert pixels(video_processor, [[image, image, image], image]).shape[:2] == (2, 4)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 400), st.integers(1, 64))
def test_frames_are_those_at_the_centres_of_equal_segments(length, num_samples):
    indices = uniform_indices(length, num_samples).tolist()
    # In whole numbers: the frame that holds the point (i + 1/2) · length / num_samples.
    assert indices == [(2 * index + 1) * length // (2 * num_samples) for index in range(num_samples)]


def test_float_pixels_are_of_0_to_1(video_processor):
    for value in (255.0, -0.5, np.nan):
        image = np.full((40, 56, 3), 0.5)
        image[0, 0, 0] = value
        message = rf"not in \[.*{value:g}.*\]; give uint8, or divide by 255"
        with pytest.raises(ValueError, match=message):
            image_pixels(video_processor, image)
        with pytest.raises(ValueError, match=message):
            pixels(video_processor, [torch.from_numpy(image)[None]])
    overshot = np.full((40, 56, 3), 1.005)  # of a filter that sharpens
    white = np.full((40, 56, 3), 255, np.uint8)
    assert torch.equal(image_pixels(video_processor, overshot), image_pixels(video_processor, white))


def test_other_things_are_refused(video_processor, tmp_path):
    with pytest.raises(ValueError, match=r"cannot be of shape \(4, 7, 32, 32\); give \(T, H, W, 3\)"):
        pixels(video_processor, [np.zeros((4, 7, 32, 32), np.uint8)])
    for call in (pixels, image_pixels):
        with pytest.raises(ValueError, match="A video or image cannot be a int; give a path"):
            call(video_processor, [3])
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_frames={number} must be at least 1"):
            pixels(video_processor, [np.zeros((4, 32, 32, 3), np.uint8)], num_frames=number)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    for name in ("torn.png", "nothing.png"):
        with pytest.raises(MediaError, match=name):
            image_pixels(video_processor, [tmp_path / name])


def test_settings_of_a_call_override_those_of_the_processor(video_processor, image):
    settings = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 24}}
    settings |= {"do_rescale": False, "do_normalize": False, "num_frames": 3, "start": 1.0, "end": 2.0}
    of_image = image_pixels(video_processor, [image], **settings)
    assert of_image.shape == (1, 1, 3, 16, 24) and of_image.max() > 100 and torch.equal(of_image, of_image.round())
    assert torch.equal(of_image[:, 0], pixels(video_processor, [[image]], **settings)[:, 0])
    assert video_processor.crop_size == {"height": 32, "width": 32}


def test_arrays_are_returned_where_they_are_asked_for(image):
    assert isinstance(FgmmImageProcessor()(image, return_tensors="np")["pixel_values_videos"], np.ndarray)


def test_grey_and_transparent_and_turned_images(video_processor, tmp_path):
    grey = Image.fromarray(np.full((40, 40), 100, dtype=np.uint8))
    clear = Image.new("RGBA", (40, 40), (100, 100, 100, 255))
    both = image_pixels(video_processor, [grey, clear])
    assert torch.allclose(both[0], both[1])
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    photo.save(tmp_path / "turned.png", exif=exif)
    turned = image_pixels(video_processor, [tmp_path / "turned.png"])
    upright = image_pixels(video_processor, [photo.transpose(Image.Transpose.ROTATE_270)])
    assert torch.allclose(turned, upright)


def test_training_crops_follow_their_generator():
    video_processor = FgmmVideoProcessor(
        num_frames=2, size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    frames = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    crops = [video_processor.random_crop(frames, np.random.default_rng(seed), 0.3, True) for seed in (1, 1, 2)]
    assert crops[0].shape == (2, 3, 16, 16)
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_pixels_are_rescaled_and_normalised(video_processor):
    white = image_pixels(video_processor, [np.full((32, 32, 3), 255, np.uint8)])
    assert torch.allclose(white, torch.full_like(white, (1 - 0.45) / 0.225))
