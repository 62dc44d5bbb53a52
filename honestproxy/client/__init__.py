"""Honest answers inside a Python program, without a server: `honest`, `completion`, `acompletion`.

`honest(OpenAI())` is a client of the same class, whose HTTP transport answers chat requests by
the application that `honestproxy serve` serves, in this process; its upstream is the client that
was wrapped.
"""

from honestproxy.client.functions import acompletion, completion
from honestproxy.client.told import Told, ToldStep
from honestproxy.client.wrapping import Honest, honest

__all__ = ["Honest", "Told", "ToldStep", "acompletion", "completion", "honest"]
