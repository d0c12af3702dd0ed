"""What was charted, as numbers in one unit per variable: the public benchmark's rules, vectorised."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from nnmiss.dataset_conversion.mimic_definitions import Variable

REFILL = {"Normal <3 secs": "0.0", "Brisk": "0.0", "Abnormal >3 secs": "1.0", "Delayed": "1.0"}
FAHRENHEIT_FROM = 79.0  # no body is that warm in degrees Celsius
KG_PER_LB, CM_PER_INCH, OZ_PER_LB = 0.453592, 2.54, 16.0


def clean(events: pd.DataFrame, variable: Variable, ranges: bool = True) -> np.ndarray:
    """The values of one variable, (n,) float64, NaN where they cannot be used.

    Args:
        events: columns `itemid` (int), `value` and `valueuom` (text or missing).
        variable: what all these items measure.
        ranges: drop outliers and clip to the valid range.

    Returns:
        continuous variables: mmHg, fraction of oxygen, mg/dl, beats per minute, cm, percent, breaths per minute, degrees
        Celsius, kg. Categorical ones: position in `variable.sorted_values`.
    """
    if variable.values:
        return _category(events["value"], variable)
    unit = events["valueuom"].fillna("").str.lower()
    values = _RULES.get(variable.name, _number)(events, unit, variable)
    values = values.to_numpy(np.float64, copy=True)
    values[~np.isfinite(values)] = np.nan
    if ranges and variable.valid:
        values[(values < variable.outlier[0]) | (values > variable.outlier[1])] = np.nan
        values = np.clip(values, *variable.valid)
    return values


def _category(text: pd.Series, variable: Variable) -> np.ndarray:
    """Position of each answer; a whole number may be written with a point, as 15.0."""
    text = text.str.strip().replace(REFILL)
    position = {name: float(i) for i, name in enumerate(variable.sorted_values)}
    found = text.map(position)
    return found.fillna(text.str.replace(r"\.0+$", "", regex=True).map(position)).to_numpy(np.float64)


def _number(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    return pd.to_numeric(events["value"], errors="coerce")


def _pressure(side: int) -> Callable[..., pd.Series]:
    """Some pressures are written as systolic/diastolic; `side` picks one of the two."""
    def rule(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
        both = events["value"].str.extract(r"^\s*(\d+)\s*/\s*(\d+)\s*$")[side]
        return pd.to_numeric(both.fillna(events["value"]), errors="coerce")
    return rule


def _oxygen_fraction(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    """Percent where above 1, unless the unit is torr."""
    values = _number(events, unit, variable)
    return values.where(unit.str.contains("torr") | ~(values > 1), values / 100)


def _saturation(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    """A fraction where at most 1."""
    values = _number(events, unit, variable)
    return values.where(~(values <= 1), values * 100)


def _temperature(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    """Fahrenheit by size: items and unit columns are not reliable, and no value is possible in both."""
    values = _number(events, unit, variable)
    return values.where(~(values >= FAHRENHEIT_FROM), (values - 32) * 5 / 9)


def _weight(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    values = _number(events, unit, variable)
    ounces = events["itemid"].isin(variable.units["oz"]) | unit.str.contains("oz")
    pounds = ounces | events["itemid"].isin(variable.units["lb"]) | unit.str.contains("lb")
    values = values.where(~ounces, values / OZ_PER_LB)
    return values.where(~pounds, values * KG_PER_LB)


def _height(events: pd.DataFrame, unit: pd.Series, variable: Variable) -> pd.Series:
    values = _number(events, unit, variable)
    inches = events["itemid"].isin(variable.units["in"]) | unit.str.contains("in")
    return values.where(~inches, (values * CM_PER_INCH).round())


_RULES = {
    "Systolic blood pressure": _pressure(0),
    "Diastolic blood pressure": _pressure(1),
    "Fraction inspired oxygen": _oxygen_fraction,
    "Oxygen saturation": _saturation,
    "Temperature": _temperature,
    "Weight": _weight,
    "Height": _height,
}
