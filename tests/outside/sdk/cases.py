"""What each SDK is asked through the proxy, and what it must make of it: one list for all three."""

from tests.outside.sdk.chat import CHAT, ELSE, ERRORS, STREAMS, TOOLED
from tests.outside.sdk.responses import RESPONSES

CASES = [*CHAT, *STREAMS, *TOOLED, *ELSE, *ERRORS, *RESPONSES]
