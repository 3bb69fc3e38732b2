"""Recipes: a data set, a teacher and model classes that are known to work together, one small file each."""

from training.recipes import cifar10, cifar100, cube, digits, dsa19, ellipsoid, google13, npz, regression
from training.recipes.recipe import Prepared, Recipe

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (digits, ellipsoid, cube, regression, cifar10, cifar100, google13, dsa19, npz)
}

__all__ = ["RECIPES", "Prepared", "Recipe"]
