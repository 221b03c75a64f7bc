import models
import pytest


@pytest.fixture(scope="module")
def model():
    return models.small_model()


@pytest.fixture(scope="session")
def save_model():
    """Saves a small model, of any class and with any fields of its configuration, and its tokenizer."""
    return models.save_model
