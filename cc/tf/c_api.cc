#include "cc/tf/c_api.h"

#include <dlfcn.h>

namespace keras_lth::tf {

namespace {

ApiTable table;

// Only libraries that are loaded already: nothing is ever loaded twice, or from another place.
constexpr const char* kLibraries[] = {
    "libtensorflow_framework.so.2",
    "libtensorflow_cc.so.2",
    "libtensorflow_framework.2.dylib",
    "libtensorflow_cc.2.dylib",
};

}  // namespace

void* FindSymbol(const char* name) {
  if (void* found = dlsym(RTLD_DEFAULT, name)) return found;
  for (const char* file : kLibraries) {
    void* library = dlopen(file, RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) continue;
    void* found = dlsym(library, name);
    dlclose(library);
    if (found != nullptr) return found;
  }
  return nullptr;
}

const char* FindApi() {
#define KERAS_LTH_TF_FIND(name)                                         \
  table.name = reinterpret_cast<decltype(&::name)>(FindSymbol(#name));  \
  if (table.name == nullptr) return #name;
  KERAS_LTH_TF_FUNCTIONS(KERAS_LTH_TF_FIND)
#undef KERAS_LTH_TF_FIND
  return nullptr;
}

const ApiTable& Api() { return table; }

}  // namespace keras_lth::tf
