"""Area of the marching-cubes surface inside each of the 2x2x2 neighbourhoods a binary image can have.

The BraTS 2023 definition of HD95 (DeepMind's surface distance) weights every lattice point between voxels by the area
of the surface patch around it. The patch depends on which of the 8 voxels around the point are inside: 256 codes. The
areas are worked out here from geometry; they equal those of the `surface-distance` package for all codes, any spacing.
"""
from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

Corner = tuple[int, ...]
Triangle = tuple[Corner, Corner, Corner]


def corner_offsets(ndim: int) -> list[Corner]:
    """The 2^ndim voxels around a lattice point; bit i of a neighbourhood's code stands for entry i."""
    return list(product((0, 1), repeat=ndim))


@lru_cache(maxsize=64)
def surface_elements(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Surface area (3D, mm^2) or contour length (2D, mm) of each neighbourhood code.

    Returns (256,) or (16,) float64; 0 for the codes "all outside" and "all inside". Raises ValueError for other ndim.
    """
    if len(spacing_mm) == 2:
        return _contour_lengths(spacing_mm)
    if len(spacing_mm) != 3:
        raise ValueError(f"surface elements exist in 2D and 3D, got spacing {spacing_mm}")
    scale = np.asarray(spacing_mm) / 2  # triangles are kept in half voxels
    areas = np.zeros(256)
    for code, triangles in enumerate(_all_triangles()):
        for a, b, c in np.array(triangles).reshape(-1, 3, 3) * scale:
            areas[code] += np.linalg.norm(np.cross(b - a, c - a)) / 2
    return areas


def _contour_lengths(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """A corner alone is cut off along the half diagonal; two side by side are divided by a straight line."""
    half_diagonal = np.hypot(*spacing_mm) / 2
    offsets = corner_offsets(2)
    lengths = np.zeros(16)
    for code in range(16):
        inside = [offset for bit, offset in enumerate(offsets) if code >> bit & 1]
        if len(inside) in (1, 3):
            lengths[code] = half_diagonal
        elif len(inside) == 2:
            along = [axis for axis in (0, 1) if inside[0][axis] != inside[1][axis]]
            lengths[code] = 2 * half_diagonal if len(along) == 2 else spacing_mm[along[0]]
    return lengths


@lru_cache(maxsize=1)
def _all_triangles() -> list[list[Triangle]]:
    """Triangles of the surface for each of the 256 codes, in half voxels (corners at 0 and 2, edge middles at 1)."""
    corners = corner_offsets(3)
    result = []
    for code in range(256):
        inside = {corner for bit, corner in enumerate(corners) if code >> bit & 1}
        if len(inside) > 4:  # the smaller side is cut off, in pieces that touch along edges of the cube
            inside = set(corners) - inside
        result.append([triangle for piece in _pieces(inside) for triangle in _triangulate(_outline(piece))])
    return result


def _flipped(corner: Corner, axis: int) -> Corner:
    return tuple(1 - value if i == axis else value for i, value in enumerate(corner))


def _pieces(corners: set[Corner]) -> list[set[Corner]]:
    """Splits corners into groups joined by edges of the cube; corners that meet only diagonally stay apart."""
    left, pieces = set(corners), []
    while left:
        piece, front = set(), [left.pop()]
        while front:
            corner = front.pop()
            piece.add(corner)
            joined = {_flipped(corner, axis) for axis in range(3)} & left
            left -= joined
            front.extend(joined)
        pieces.append(piece)
    return pieces


def _outline(piece: set[Corner]) -> list[Corner]:
    """The closed line around a piece: middles of the edges that leave it, in order, neighbours on a common face."""
    points = sorted({
        tuple(a + b for a, b in zip(corner, _flipped(corner, axis)))
        for corner in piece for axis in range(3) if _flipped(corner, axis) not in piece
    })
    if not points:
        return []
    outline, left = [points[0]], points[1:]
    while left:
        last = outline[-1]
        following = next(p for p in left if any(a == b != 1 for a, b in zip(p, last)))
        outline.append(following)
        left.remove(following)
    return outline


def _triangulate(outline: list[Corner]) -> list[Triangle]:
    """The triangulation of largest area: the bulge that DeepMind's table has where the outline is not flat."""
    def area(triangles: list[Triangle]) -> float:
        return sum(np.linalg.norm(np.cross(np.subtract(b, a), np.subtract(c, a))) for a, b, c in triangles)

    return max(_triangulations(outline), key=area, default=[])


def _triangulations(outline: list[Corner]) -> list[list[Triangle]]:
    """All ways to divide a closed line into triangles; the one on its first and last point is chosen first."""
    if len(outline) < 3:
        return [[]]
    first, last = outline[0], outline[-1]
    return [
        left + right + [(first, outline[k], last)]
        for k in range(1, len(outline) - 1)
        for left in _triangulations(outline[: k + 1])
        for right in _triangulations(outline[k:])
    ]
