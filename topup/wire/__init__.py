"""What is let in of what others say? The wall that every answer of a provider, an API or a seller crosses.

`egress` finds the way out, `http` asks and bounds an answer's time and size, `unpack` what it unpacks to, `document`
what its JSON may hold.
"""
