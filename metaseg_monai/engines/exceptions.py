"""Hearing of the error that ends a run without swallowing it."""

from collections.abc import Callable

from ignite.engine import Engine, Events


def hear_of_errors(engine: Engine, handler: Callable[[Engine, BaseException], None]) -> None:
    """Call a handler with the error that ends a run, and let the error pass on.

    Ignite swallows an error as soon as one handler is attached to it, and a handler that raises it
    again keeps those behind it from being called. Here all are called before it passes.

    Args:
        engine: any engine.
        handler: called with the engine and the error; may be called twice.

    Example:
        >>> engine = Engine(lambda engine, batch: 1 / 0)
        >>> hear_of_errors(engine, lambda engine, error: print("first:", error))
        >>> hear_of_errors(engine, lambda engine, error: print("second:", error))
        >>> engine.logger.disabled = True
        >>> try:
        ...     engine.run([0])
        ... except ZeroDivisionError:
        ...     print("passed on")
        first: division by zero
        second: division by zero
        first: division by zero
        second: division by zero
        passed on
    """
    if engine.has_event_handler(_pass_on, Events.EXCEPTION_RAISED):
        engine.remove_event_handler(_pass_on, Events.EXCEPTION_RAISED)
    engine.add_event_handler(Events.EXCEPTION_RAISED, handler)
    engine.add_event_handler(Events.EXCEPTION_RAISED, _pass_on)


def _pass_on(engine: Engine, error: BaseException) -> None:
    raise error
