"""Functions for everyday questions: what the calls of `flows/function_calling.py` are run against.

Put your own beside them, or in a file of your own. Annotations are what arguments are checked against, so make them
exact; raise an error for values that make no sense.
"""

from __future__ import annotations

import datetime
import math
from typing import Annotated, Literal

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]

LENGTHS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0, "inch": 0.0254, "foot": 0.3048, "mile": 1609.344}
EARTH_KM = 6371.0


def convert_length(
    value: float,
    from_unit: Literal["mm", "cm", "m", "km", "inch", "foot", "mile"],
    to_unit: Literal["mm", "cm", "m", "km", "inch", "foot", "mile"],
) -> float:
    return round(value * LENGTHS[from_unit] / LENGTHS[to_unit], 4)


def convert_temperature(
    degrees: float, from_scale: Literal["celsius", "fahrenheit"], to_scale: Literal["celsius", "fahrenheit"]
) -> float:
    celsius = degrees if from_scale == "celsius" else (degrees - 32) * 5 / 9
    return round(celsius if to_scale == "celsius" else celsius * 9 / 5 + 32, 1)


def loan_payment(principal: Positive, yearly_rate_percent: Percent, years: Annotated[int, Field(ge=1, le=50)]) -> float:
    months, rate = years * 12, yearly_rate_percent / 1200
    return round(principal / months if rate == 0 else principal * rate / (1 - (1 + rate) ** -months), 2)


def savings_after(
    start: Annotated[float, Field(ge=0)],
    yearly_rate_percent: Percent,
    years: Annotated[int, Field(ge=1, le=100)],
    monthly_deposit: Annotated[float, Field(ge=0)] = 0.0,
) -> float:
    balance = start
    for _ in range(years * 12):
        balance = balance * (1 + yearly_rate_percent / 1200) + monthly_deposit
    return round(balance, 2)


def body_mass_index(weight_kg: Positive, height_m: Annotated[float, Field(gt=0.3, lt=3)]) -> float:
    return round(weight_kg / height_m**2, 1)


def days_between(start: datetime.date, end: datetime.date) -> int:
    return (end - start).days


def date_after(start: datetime.date, days: Annotated[int, Field(ge=-36500, le=36500)]) -> datetime.date:
    return start + datetime.timedelta(days=days)


def weekday_of(day: datetime.date) -> str:
    return day.strftime("%A")


def split_bill(total: Positive, people: Annotated[int, Field(ge=1)], tip_percent: Percent = 0.0) -> float:
    return round(total * (1 + tip_percent / 100) / people, 2)


def distance_on_earth(
    from_latitude: Latitude, from_longitude: Longitude, to_latitude: Latitude, to_longitude: Longitude
) -> float:
    north, south = math.radians(from_latitude), math.radians(to_latitude)
    across = math.radians(to_longitude - from_longitude)
    half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(across / 2) ** 2
    return round(2 * EARTH_KM * math.asin(math.sqrt(half)), 1)


def travel_hours(distance_km: Positive, speed_km_per_hour: Positive) -> float:
    return round(distance_km / speed_km_per_hour, 2)


def fuel_cost(distance_km: Positive, litres_per_100_km: Positive, price_per_litre: Positive) -> float:
    return round(distance_km / 100 * litres_per_100_km * price_per_litre, 2)


def paint_litres(
    wall_widths_m: Annotated[list[Positive], Field(min_length=1)],
    height_m: Positive,
    coats: Annotated[int, Field(ge=1, le=10)] = 2,
    square_metres_per_litre: Positive = 10.0,
) -> float:
    return round(sum(wall_widths_m) * height_m * coats / square_metres_per_litre, 1)


def scale_recipe(
    amounts: Annotated[dict[str, Positive], Field(min_length=1)], servings: Positive, wanted_servings: Positive
) -> dict[str, float]:
    return {ingredient: round(amount * wanted_servings / servings, 2) for ingredient, amount in amounts.items()}


def weighted_average(
    values: Annotated[list[float], Field(min_length=1)], weights: list[Positive] | None = None
) -> float:
    if weights is not None and len(weights) != len(values):
        raise ValueError(f"expected {len(values)} weights, got {len(weights)}")
    each = weights or [1.0] * len(values)
    return round(sum(value * weight for value, weight in zip(values, each, strict=True)) / sum(each), 3)


def running_pace(distance_km: Positive, minutes: Positive) -> str:
    seconds = round(minutes * 60 / distance_km)
    return f"{seconds // 60}:{seconds % 60:02d} min/km"
