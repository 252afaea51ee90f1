from setuptools import find_namespace_packages, setup

# The required folders stand at the top of the repository but are installed only under `callboard`, so that a host with
# an `actors` or `persistence` of its own is never disturbed. find_namespace_packages also keeps folders without __init__.
setup(
    packages=[
        *find_namespace_packages(include=["callboard", "callboard.*"]),
        *(
            f"callboard.{name}"
            for name in find_namespace_packages(include=["actors", "actors.*", "persistence", "persistence.*"])
        ),
    ],
)
