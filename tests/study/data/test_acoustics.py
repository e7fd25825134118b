"""Noises have the spectra, mixtures the ratios and rooms the decays that they claim."""

import numpy as np
import pytest

from study.data import acoustics
from study.data.acoustics import Waveform

RATE = 16_000


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def bursts() -> Waveform:
    """Two seconds of noise with pauses, which stand in for speech."""
    on = (np.arange(2 * RATE) // 2000) % 2
    return 0.1 * generator().standard_normal(2 * RATE) * on


def decibels(ratio: float) -> float:
    return 20.0 * float(np.log10(ratio))


def test_an_unknown_noise_is_refused() -> None:
    with pytest.raises(KeyError):
        acoustics.noise("plaid", 100, sample_rate=RATE, crowd=bursts(), rng=generator())


@pytest.mark.parametrize("kind", acoustics.NOISES)
@pytest.mark.parametrize("snr", [-5.0, 8.0, 30.0])
def test_a_mixture_has_the_ratio_asked_for(kind: str, snr: float) -> None:
    speech = bursts()
    noise = acoustics.noise(kind, speech.size, sample_rate=RATE, crowd=bursts(), rng=generator())
    heard = acoustics.mix(speech, noise, snr)
    measured = decibels(acoustics.rms(speech) / acoustics.rms(heard - speech))
    assert measured == pytest.approx(snr, abs=1e-6)


@pytest.mark.parametrize(("kind", "per_octave"), [("white", 0.0), ("pink", -3.0), ("brown", -6.0)])
def test_a_noise_falls_by_its_decibels_per_octave(kind: str, per_octave: float) -> None:
    noise = acoustics.noise(kind, 10 * RATE, sample_rate=RATE, crowd=bursts(), rng=generator())
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(noise.size, 1 / RATE)
    octaves = [
        10 * np.log10(power[(frequencies >= low) & (frequencies < 2 * low)].mean())
        for low in (125, 250, 500, 1000, 2000, 4000)
    ]
    slope = np.polyfit(range(len(octaves)), octaves, 1)[0]
    assert slope == pytest.approx(per_octave, abs=0.3)


def test_babble_is_a_stretch_of_the_crowd_that_wraps_around() -> None:
    crowd = np.arange(100.0)
    stretch = acoustics.noise("babble", 250, sample_rate=RATE, crowd=crowd, rng=generator())
    assert stretch.size == 250
    assert set(np.diff(stretch)) == {1.0, -99.0}


def test_everybody_in_the_crowd_is_equally_loud() -> None:
    quiet, loud = np.zeros(1000), np.zeros(1500)
    quiet[::2], loud[1::2] = 0.001, 1.0  # never at the same time
    crowd = acoustics.babble([[quiet[:400], quiet[400:]], [loud]])
    assert crowd.size == 1000
    assert acoustics.rms(crowd[::2]) == pytest.approx(acoustics.rms(crowd[1::2]))


def test_a_room_decays_by_60_decibels_in_its_time() -> None:
    click = np.zeros(RATE)
    click[100] = 1.0
    response = acoustics.reverberate(
        click, decay=0.4, direct=6.0, sample_rate=RATE, rng=generator()
    )
    assert response.size == click.size
    assert np.abs(response[:100]).max() < 1e-9  # nothing is heard before it sounds
    assert response[100] == pytest.approx(1.0)
    tail = response[101 : 100 + int(0.4 * RATE)]
    assert 10 * np.log10(1.0 / np.sum(tail**2)) == pytest.approx(6.0, abs=0.01)
    early = tail[int(0.05 * RATE) : int(0.10 * RATE)]
    late = tail[int(0.25 * RATE) : int(0.30 * RATE)]
    assert decibels(acoustics.rms(early) / acoustics.rms(late)) == pytest.approx(30.0, abs=2.0)


def test_draws_follow_the_generator() -> None:
    def pink(rng: np.random.Generator) -> Waveform:
        return acoustics.noise("pink", 500, sample_rate=RATE, crowd=bursts(), rng=rng)

    def room(rng: np.random.Generator) -> Waveform:
        return acoustics.reverberate(bursts(), decay=0.2, direct=3.0, sample_rate=RATE, rng=rng)

    for draw in (pink, room):
        np.testing.assert_array_equal(draw(generator()), draw(generator()))
        assert not np.array_equal(draw(generator()), draw(np.random.default_rng(8)))


def test_recordings_are_equally_loud_and_never_clip() -> None:
    assert decibels(acoustics.rms(acoustics.level(bursts()))) == pytest.approx(acoustics.LEVEL)
    click = np.full(RATE, 1e-5)
    click[5] = 1.0
    assert 0.9 < np.abs(acoustics.level(click)).max() < 1.0
