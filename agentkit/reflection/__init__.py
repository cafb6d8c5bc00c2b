"""How a judgement becomes lessons."""
