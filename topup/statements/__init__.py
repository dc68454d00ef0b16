"""How is a statement written, and for whom?"""
