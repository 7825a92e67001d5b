"""A room of C++: a library, with a part for each instruction set where there is one."""

# The same as in setup.py; a test compares them.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
]

COPTS = ["-std=c++17"] + WARNINGS + ["-Werror"]

AVX2 = [
    "-mavx2",
    "-mfma",
    "-mf16c",
    "-mbmi",
    "-mbmi2",
    "-mpopcnt",
]

ISA_FLAGS = {
    "avx2.cc": AVX2,
    "avx512.cc": AVX2 + [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
    ],
}

def room(name, deps = [], copts = []):
    """The sources and headers of cc/<name> as the library :<name>.

    Args:
      name: the folder under cc/.
      deps: libraries it needs.
      copts: further flags of the compiler.
    """
    folder = "cc/" + name + "/"
    native.cc_library(
        name = name + "_headers",
        hdrs = native.glob([folder + "*.h"], allow_empty = True),
        textual_hdrs = native.glob([folder + "*.inc"]),
        deps = deps,
    )
    parts = []

    # Each instruction set is a library of its own, because flags belong to a library. On other processors it is empty.
    for source, flags in ISA_FLAGS.items():
        for path in native.glob([folder + source]):
            part = name + "_" + source[:-len(".cc")]
            native.cc_library(
                name = part,
                srcs = [path],
                copts = COPTS + copts + select({
                    "//:x86_64": flags,
                    "//conditions:default": [],
                }),
                deps = [":" + name + "_headers"],
            )
            parts.append(":" + part)
    native.cc_library(
        name = name,
        srcs = native.glob(
            [folder + "*.cc"],
            exclude = [folder + source for source in ISA_FLAGS],
        ),
        copts = COPTS + copts,
        linkopts = ["-pthread"],
        deps = [":" + name + "_headers"] + parts,
    )
