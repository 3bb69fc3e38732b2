"""Recipes: a data set, a teacher and model classes that are known to work together, one small file each."""

from training.recipes import cube, digits, ellipsoid, npz
from training.recipes.recipe import Prepared, Recipe

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (digits.RECIPE, ellipsoid.RECIPE, cube.RECIPE, npz.RECIPE)
}

__all__ = ["RECIPES", "Prepared", "Recipe"]
