"""What is let in of what others say? The wall that every answer of a provider, an API or a seller crosses.

`egress` finds the way out, `http` asks and bounds an answer's time and size, `unpack` what it unpacks to. `reading`
turns whatever decoders raise into a sentence, `clean` makes others' words fit to be said, `secrets` finds ours in them.
"""
