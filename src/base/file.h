// Files: mapped whole for reading, written atomically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace shardwright {

// A regular file, mapped whole and read-only. Throws Error(kUsage) where there is none.
class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }  // null if the file is empty
  int64_t size() const { return size_; }           // bytes
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // Gives back the memory of the whole pages within [data, data + size), a part of the mapping.
  // They can be read again; the system then fetches them again.
  void forget(const std::byte* data, int64_t size) const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

// Writes a new file under a temporary name beside `path`; commit() makes it appear whole, in place
// of what was there. Without commit nothing is left. Throws Error(kUsage) where the folder can't be
// written or the disk is full (says how many bytes are needed and free).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Makes sure now that `bytes` fit on the disk.
  void reserve(int64_t bytes);
  void write_at(int64_t offset_bytes, std::span<const std::byte> bytes);
  void write_at(int64_t offset_bytes, std::string_view bytes) {
    write_at(offset_bytes, std::as_bytes(std::span(bytes)));
  }
  // Flushes what was written so far to the disk.
  void sync();
  // sync, rename to `path`, sync of the folder.
  void commit();

 private:
  [[noreturn]] void fail(const std::string& what, int error) const;

  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
  int64_t needed_bytes_ = 0;
};

}  // namespace shardwright
