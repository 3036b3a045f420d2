"""A server for one model: what waits is answered in batches, what is too much is refused in a line, and a newer version takes over without a request lost.

``request_body`` reads what is asked, ``batching`` puts it to the model, ``app`` is what HTTP sees of both, ``following`` changes the version, and ``server`` listens
and ends. Nothing here knows where versions come from: whoever serves hands over one that was checked, and a function that brings the next.
"""
