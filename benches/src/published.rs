//! What the authors of FGD published.
