// Reads a PEF: memory-mapped, everything checked before it is believed.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pef/fused.h"
#include "pef/program.h"

namespace shardwright::pef {

struct SegmentInfo;

// In place of a number of chips: whose programs to decode.
inline constexpr int kAllPlans = 0;
inline constexpr int kFirstPlan = -1;
inline constexpr int kNoPlan = -2;

class File {
 public:
  // Maps the file and checks the digests of all metadata. Of the programs, those of the plan for
  // `n_chips` (or see above) are decoded and checked: most of the time that opening takes. Throws
  // Error(kBrokenFile): damaged, truncated, another version (says what wrote it, what reads it, how
  // to compile again); Error(kUsage): no such file; no plan for n_chips (lists those there are).
  static std::shared_ptr<File> open(const std::string& path, int n_chips = kAllPlans);

  const Manifest& manifest() const { return manifest_; }
  const std::string& report_json() const { return report_json_; }
  const std::string& path() const { return path_; }
  // SHA-256 of the index, in hex. The index holds the digests of all else: files with equal digests
  // are equal.
  const std::string& digest() const { return digest_; }
  int64_t size_bytes() const { return size_bytes_; }
  // The whole tensor in the mapping: contiguous, or strides of 0 over the one element of a repeated
  // one. Its leaves are hashed when first touched (throws
  // Error(kBrokenFile)) unless `verify` is false. Threads may call it together: each leaf is hashed
  // once. Throws Error(kUsage) where the file was written without the tensor's bytes.
  TensorView tensor(int index, bool verify = true) const;
  // Hashes the leaves of a part of what tensor() shows that nobody has hashed: `size_bytes` from
  // `offset_bytes` on. Throws as tensor() does; threads may call it together.
  void verify(int index, int64_t offset_bytes, int64_t size_bytes) const;
  // Gives back the memory of bytes of the mapping that tensor() has shown; see MappedFile::forget.
  void forget(const std::byte* data, int64_t size) const;
  // The names of the files that go along with the model (WriteOptions::files), and one's content.
  // Throws Error(kUsage) for another name.
  const std::vector<std::string>& files() const { return files_; }
  std::string_view file(const std::string& name) const;
  // Hashes every byte of the weights (open() has accounted for all others). Throws
  // Error(kBrokenFile).
  void verify_deep() const;
  struct Segment {
    std::string name;
    int64_t offset_bytes = 0;
    int64_t size_bytes = 0;
    bool operator==(const Segment&) const = default;
  };
  std::vector<Segment> segments() const;
  ~File();

 private:
  File();
  void read_metadata(int n_chips);
  void read_segment(const SegmentInfo& segment, int n_chips);
  struct State;
  std::unique_ptr<State> state_;
  Manifest manifest_;
  std::string report_json_;
  std::vector<std::string> files_;
  std::string path_;
  std::string digest_;
  int64_t size_bytes_ = 0;
};

// The semantic checks, apart from the file: every index, offset, stride inside its memory;
// operators known; steps' rules fit; definitions before uses; all chips of a plan list the same
// exchanges in the same order with matching sizes; every read finds what one step wrote and nothing
// has overwritten; steps without a barrier between them touch different bytes. Plans without chips
// (not decoded) are skipped. Fused steps must be such as `why_not_fused` allows. Throws
// Error(kBrokenFile).
void check_manifest(const Manifest& manifest, WhyNotFused why_not_fused = ops::why_not_fused);

}  // namespace shardwright::pef
