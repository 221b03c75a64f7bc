from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

TRAIN = [
    "accelerate>=1.10",
    "datasets>=3.0",
    "h5py>=3.10",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pandas>=2.0",
    "peft>=0.14",
    "pyarrow>=17.0",
    "pyBigWig>=0.3.22",
    "pysam>=0.22",
    "rich>=13.0",
    "scikit-learn>=1.4",
    "scipy>=1.11",
    "shtab>=1.7",
]
ATTRIBUTION = ["logomaker>=0.8", "tangermeme>=1.0"]
H5AD = ["anndata>=0.11", "pandas>=2.0,<3"]  # not part of "all": anndata has no version for pandas 3 yet
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
NOTEBOOKS = ["ipykernel>=6.29", "ipywidgets>=8.1", "nbclient>=0.10", "nbformat>=5.10"]
DOCS = ["mkdocs>=1.6", "mkdocstrings[python]>=1.0", "ruff>=0.9"]  # ruff breaks long signatures
TEST = [
    "captum>=0.8",
    "codespell>=2.4",
    "hypothesis>=6.100",
    "mypy>=1.14",
    "parameterized>=0.9",
    "pytest>=8.0",
    "pytest-cov>=6.0",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
]

setup(
    name="hyenadna_hf",
    version="0.2.0",
    description="HyenaDNA for Hugging Face transformers",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["hyenadna_cli", "hyenadna_hf", "hyenadna_hf.*"]),
    package_data={
        "hyenadna_hf": ["py.typed", "data/*/*.csv.gz", "data/*/README.md", "pretrained/*/*"],
    },
    install_requires=["torch>=2.4", "transformers>=4.57.6,<6", "tokenizers>=0.21", "safetensors>=0.4.3"],
    extras_require={
        "all": TRAIN,
        "attribution": TRAIN + ATTRIBUTION,
        "docs": DOCS,
        "h5ad": H5AD,
        "notebooks": TRAIN + NOTEBOOKS,
        "onnx": ONNX,
        "test": TRAIN + NOTEBOOKS + ONNX + TEST,
    },
    entry_points={"console_scripts": ["hyenadna = hyenadna_cli:run"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
