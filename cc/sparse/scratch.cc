#include "cc/sparse/scratch.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

namespace keras_lth::sparse {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSlots = 32;
constexpr std::size_t kKept = std::size_t{1} << 27;  // bytes at most, over all slots

struct Buffer {
  void* data = nullptr;
  std::size_t bytes = 0;
};

void Free(void* data) { ::operator delete(data, std::align_val_t{kAlignment}); }

// Locked by attempts only: a process that was forked while another thread held it does without.
struct Store {
  std::mutex mutex;
  Buffer slots[kSlots];
  std::size_t kept = 0;
};

// Never destroyed: threads may still hand buffers back while the process ends.
Store& TheStore() {
  static Store& store = *new Store;
  return store;
}

Buffer Take(std::size_t bytes) {
  Store& store = TheStore();
  const std::unique_lock<std::mutex> lock(store.mutex, std::try_to_lock);
  Buffer* best = nullptr;
  if (lock.owns_lock()) {
    for (Buffer& slot : store.slots) {
      if (slot.bytes >= bytes && slot.data != nullptr && (best == nullptr || slot.bytes < best->bytes)) best = &slot;
    }
  }
  // A buffer far too large stays for a call that needs it.
  if (best == nullptr || best->bytes / 8 > bytes) return {};
  store.kept -= best->bytes;
  return std::exchange(*best, Buffer{});
}

// Where there is no room the smallest buffer goes.
void Return(Buffer buffer) {
  Store& store = TheStore();
  {
    const std::unique_lock<std::mutex> lock(store.mutex, std::try_to_lock);
    if (lock.owns_lock() && buffer.bytes <= kKept / 2) {
      Buffer* slot = std::min_element(store.slots, store.slots + kSlots,
                                      [](const Buffer& a, const Buffer& b) { return a.bytes < b.bytes; });
      if (slot->bytes < buffer.bytes && store.kept - slot->bytes + buffer.bytes <= kKept) {
        store.kept += buffer.bytes - slot->bytes;
        std::swap(*slot, buffer);
      }
    }
  }
  if (buffer.data != nullptr) Free(buffer.data);
}

}  // namespace

Scratch::Scratch(std::int64_t count) {
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max() / 8;
  if (count < 0 || count > kMost) throw std::bad_alloc();
  const std::size_t bytes = std::max<std::size_t>(static_cast<std::size_t>(count) * sizeof(float), 4096);
  Buffer buffer = Take(bytes);
  if (buffer.data == nullptr) buffer = {::operator new(bytes, std::align_val_t{kAlignment}), bytes};
  data_ = static_cast<float*>(buffer.data);
  bytes_ = buffer.bytes;
}

Scratch::~Scratch() { Return({data_, bytes_}); }

}  // namespace keras_lth::sparse
