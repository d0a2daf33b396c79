"""Design of low-pass filters: windowed ideal filters, along one axis or around a point."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["lowpass", "radial_lowpass"]

Floats = NDArray[np.float64]


def lowpass(taps: int, cutoff: float, width: float, rate: float) -> Floats:
    """h[n] ∝ sinc(2 f_c n / s) · kaiser(n), n = -(taps - 1) / 2, ..., (taps - 1) / 2; sum 1. (taps,) float64.

    The Kaiser window is the one whose transition band has this width (Oppenheim & Schafer, Discrete-Time Signal
    Processing, sec. 7.6; Karras et al. 2021, app. C.1).

    taps: at least 2.
    cutoff: f_c, where the band ends, in the unit of `rate`.
    width: of the transition from pass to stop, centred at f_c.
    rate: s, samples per unit of length.
    """
    h = np.sinc(2 * cutoff / rate * centred(taps)) * kaiser(taps, width, rate)
    return h / h.sum()


def radial_lowpass(taps: int, cutoff: float, width: float, rate: float) -> Floats:
    """The `lowpass` that treats all directions alike: h ∝ J₁(2π f_c r) / (π r) · kaiser(x) · kaiser(y). (taps, taps).

    J₁(2π f_c r) f_c / r is the ideal filter of the disc of radius f_c; r is the distance from the middle. The window is
    separable (Karras et al. 2021, sec. 3.2 and app. C.1). taps is even, so r > 0; the other arguments as in `lowpass`.
    """
    n = centred(taps) / rate
    r = np.hypot(n[:, None], n[None, :])
    window = kaiser(taps, width, rate)
    h = bessel_j1(2 * np.pi * cutoff * r) / (np.pi * r) * np.outer(window, window)
    return h / h.sum()


def centred(taps: int) -> Floats:
    """Positions of the taps, from the middle: -(taps - 1) / 2, ..., (taps - 1) / 2."""
    positions: Floats = np.arange(taps) - (taps - 1) / 2
    return positions


def kaiser(taps: int, width: float, rate: float) -> Floats:
    """Kaiser's window for a transition of `width`, with his formulas for the attenuation in dB and for β."""
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    return np.kaiser(taps, beta)


def bessel_j1(x: Floats) -> Floats:
    """J₁(x) = mean of cos(θ - x sin θ) over a period (Bessel's integral), for x >= 0.

    A mean over M equally spaced θ has the error J_{M-1}(x) + ..., which falls faster than exponentially once M > x.
    """
    points = 64 + 2 * math.ceil(float(x.max(initial=0.0)))
    theta = 2 * np.pi * np.arange(points) / points
    mean: Floats = np.cos(theta - x[..., None] * np.sin(theta)).mean(-1)
    return mean
