"""What happens to images in the field: corruptions at five levels.

Two families, each a mapping of its own: `CORRUPTIONS`, the eight after CURE-TSR, and `CIFAR10_C`, the nineteen of
CIFAR-10-C. `corrupt` is the door to both.

Size. Lengths (radii, sigmas) are given for an image of 32 pixels and scale with the smaller side: an 8x8 digit
is blurred over a quarter of the pixels. A blur much narrower than a pixel would do nothing, so images of 16
pixels and less are treated on a finer grid: each pixel is repeated f x f times (f = 32 // side), changed there
and averaged back.

Randomness. Every image has random streams of its own, started by one number from the generator. So the result
for an image depends on the generator and the image's place in the order, and not on the device, on the images
around it, or on how they are cut into batches. The same generator gives an image the same numbers at every level,
so that level 5 is level 1, only more so.

Eight bits. The result is rounded to whole 255ths, as a file would hold it. Otherwise a detector could tell a
corrupted image from a clean one by its fractional parts, which no camera delivers. Rounded, not cut off: the files of
CIFAR-10-C are cut off, and are half a grey level darker for it.
"""

from tutorial_lib.data.corruptions.apply import FAMILIES, corrupt, corruption_names
from tutorial_lib.data.corruptions.base import LEVELS, Corruption
from tutorial_lib.data.corruptions.cifar10_c import CIFAR10_C
from tutorial_lib.data.corruptions.cifar10_c_files import load_cifar10_c
from tutorial_lib.data.corruptions.cure import CORRUPTIONS
from tutorial_lib.data.corruptions.filters import disk_kernel, gaussian_kernel, motion_blur

__all__ = [
    "CIFAR10_C",
    "CORRUPTIONS",
    "FAMILIES",
    "LEVELS",
    "Corruption",
    "corrupt",
    "corruption_names",
    "disk_kernel",
    "gaussian_kernel",
    "load_cifar10_c",
    "motion_blur",
]
