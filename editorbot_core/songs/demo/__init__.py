"""Demo songs, composed by rule: form, harmony, synthesis, and their annotations."""
