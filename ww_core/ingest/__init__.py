"""The thin way in: validate, write as pending, ring."""
