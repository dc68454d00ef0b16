"""Words and pure judgement: what money, a charge, a top-up and a decision are. Touches nothing."""
