"""The shapes of OpenAI's wire format: JSON helpers and the error every refusal becomes."""

from typing import TypeAlias, TypeGuard

JsonObject: TypeAlias = dict[str, object]


def is_object(value: object) -> TypeGuard[JsonObject]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class ApiError(Exception):
    """A refusal in OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind or _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.retry_after = retry_after
        """Seconds, sent as `Retry-After` and `retry-after-ms`."""

    def body(self) -> JsonObject:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


_KINDS = {429: "requests", 503: "service_unavailable_error"}


def invalid(param: str, message: str, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def wrong_type(param: str, expected: str, got: object) -> ApiError:
    names: dict[type, str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
    }
    found = "null" if got is None else names.get(type(got), "an object")
    return invalid(param, f"Invalid type for '{param}': expected {expected}, but got {found} instead.", "invalid_type")


def missing(param: str) -> ApiError:
    return invalid(param, f"Missing required parameter: '{param}'.", "missing_required_parameter")


def model_not_found(model: str) -> ApiError:
    return ApiError(404, f"The model `{model}` does not exist or you do not have access to it.", code="model_not_found")


def text_field(fields: JsonObject, name: str) -> str:
    """The string `name` of a request. Raises `ApiError` 400 when it is missing, empty or no string."""
    value = fields.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value


def integer_field(fields: JsonObject, name: str, default: int | None, low: int, high: int | None = None) -> int | None:
    """The integer `name` of a request within [low, high]. Raises `ApiError` 400 outside of it."""
    value = fields.get(name)
    if value is None:
        return default
    if not is_integer(value):
        raise wrong_type(name, "an integer", value)
    _check_range(name, value, low, high)
    return value


def number_field(fields: JsonObject, name: str, default: float, low: float, high: float) -> float:
    """The number `name` of a request within [low, high]. Raises `ApiError` 400 outside of it."""
    value = fields.get(name)
    if value is None:
        return default
    if not is_number(value):
        raise wrong_type(name, "a decimal", value)
    _check_range(name, value, low, high)
    return value


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if value < low:
        side, bound, code = ">=", low, "below_min_value"
    elif high is not None and value > high:
        side, bound, code = "<=", high, "above_max_value"
    else:
        return
    message = f"Invalid '{name}': expected a value {side} {bound}, but got {value} instead."
    raise invalid(name, message, f"decimal_{code}")
