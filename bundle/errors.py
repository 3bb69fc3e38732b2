"""What can be wrong with a bundle.

BundleError
├── BundleNotFound    there is no such name or version under the models folder
└── InvalidBundle     it is there, but a file of it breaks the contract
"""


class BundleError(Exception):
    """One sentence that says what is wrong with which file and what to do."""


class BundleNotFound(BundleError):
    """No such name or version under the models folder."""


class InvalidBundle(BundleError):
    """A bundle is present but breaks the contract."""
