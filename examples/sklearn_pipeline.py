"""A pipeline of scikit-learn: the features that matter for a diagnosis, chosen inside the cross-validation.

pip install 'torchlasso[sklearn]' pandas
python examples/sklearn_pipeline.py
"""

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from torchlasso.estimators import FeatureSelector, SparseClassifier

NUMBERS = [2, 4, 8, 14]  # on one fold, no model reads more: its classes can be told apart by 14


def main() -> tuple[list[str], float, float]:
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, stratify=y, random_state=0)
    pipeline = Pipeline([
        ("scale", StandardScaler().set_output(transform="pandas")),
        ("select", FeatureSelector(SparseClassifier(hidden=()), features=8)),
        ("classify", LogisticRegression()),
    ])  # fmt: skip
    # the number of features is a parameter like any other, so each fold selects its own
    search = GridSearchCV(pipeline, {"select__features": NUMBERS}, cv=5).fit(x_train, y_train)
    best = search.best_estimator_
    names = best["select"].get_feature_names_out().tolist()
    every = cross_val_score(Pipeline([pipeline.steps[0], pipeline.steps[2]]), x_train, y_train, cv=5).mean()
    for number, score in zip(NUMBERS, search.cv_results_["mean_test_score"], strict=True):
        print(f"{number:2} features: accuracy {score:.1%} on held-out rows")
    print(f"all {x.shape[1]}: {every:.1%}")
    accuracy = best.score(x_test, y_test)
    print(f"{len(names)} features are kept, with an accuracy of {accuracy:.1%} on test rows: {', '.join(names)}")
    return names, accuracy, every


if __name__ == "__main__":
    main()
