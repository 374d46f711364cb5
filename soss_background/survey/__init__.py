"""How skies vary with pointing and season."""
