// Files: mapped whole for reading, written atomically.
#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace shardwright {
namespace {

// Closes a descriptor at the end of a scope.
struct Descriptor {
  explicit Descriptor(int value) : fd(value) {}
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool out_of_space(int error) { return error == ENOSPC || error == EFBIG || error == EDQUOT; }

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0)
    throw Error(ErrorCode::kUsage, "can't open " + path + ": " + std::strerror(errno));
  struct stat status {};
  if (fstat(file.fd, &status) != 0)
    throw Error(ErrorCode::kUsage, "can't read " + path + ": " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::kUsage, path + " is not a regular file");
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  if (status.st_size == 0) return mapped;
  void* data =
      mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED)
    throw Error(ErrorCode::kUsage, "can't map " + path + ": " + std::strerror(errno));
  mapped->data_ = static_cast<const std::byte*>(data);
  mapped->size_ = status.st_size;
  return mapped;
}

void MappedFile::forget(const std::byte* data, int64_t size) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t end = (begin + static_cast<uintptr_t>(size)) / page * page;
  // It only advises: what can't be given back stays.
  if (first < end) (void)madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".XXXXXX") {
  descriptor_ = mkostemp(temporary_.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail("can't create a file in " + folder_of(path_), errno);
  const mode_t mask = umask(0);  // the only way to ask for it
  umask(mask);
  fchmod(descriptor_, 0666 & ~mask);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  unlink(temporary_.c_str());
}

void AtomicFile::fail(const std::string& what, int error) const {
  std::string message = what + ": " + std::strerror(error);
  struct statvfs disk {};
  if (out_of_space(error) && statvfs(folder_of(path_).c_str(), &disk) == 0)
    message = "no space for " + path_ + ": " + std::to_string(needed_bytes_) +
              " bytes are needed, " +
              std::to_string(static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize) +
              " are free on its disk (" + std::strerror(error) +
              "). Free some, or write to a folder on another disk";
  throw Error(ErrorCode::kUsage, message);
}

void AtomicFile::reserve(int64_t bytes) {
  needed_bytes_ = std::max(needed_bytes_, bytes);
  // Not every file system can reserve; there the writes will tell.
  if (bytes > 0 && fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, bytes) != 0 &&
      out_of_space(errno))
    fail("can't write " + path_, errno);
}

void AtomicFile::write_at(int64_t offset_bytes, std::span<const std::byte> bytes) {
  needed_bytes_ = std::max(needed_bytes_, offset_bytes + static_cast<int64_t>(bytes.size()));
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), offset_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("can't write " + path_, errno);
    offset_bytes += written;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::sync() {
  if (fsync(descriptor_) != 0) fail("can't write " + path_, errno);
}

void AtomicFile::commit() {
  sync();
  if (rename(temporary_.c_str(), path_.c_str()) != 0) fail("can't rename to " + path_, errno);
  close(std::exchange(descriptor_, -1));
  const Descriptor folder(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.fd >= 0) fsync(folder.fd);  // a folder that can't be synced is no reason to fail
}

}  // namespace shardwright
