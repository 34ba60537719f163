// Reads a PEF: memory-mapped, everything checked before it is believed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pef/program.h"

namespace shardwright::pef {

class File {
 public:
  // Maps and checks all metadata. Programs of `n_chips`'s plan alone are decoded if n_chips > 0 (0:
  // all plans). Throws Error(kBrokenFile): damaged, truncated, another version (says what wrote it,
  // what reads it, how to compile again); Error(kUsage): no such file; no plan for n_chips (lists
  // those there are).
  static std::shared_ptr<File> open(const std::string& path, int n_chips = 0);

  const Manifest& manifest() const { return manifest_; }
  const std::string& report_json() const { return report_json_; }
  const std::string& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }
  // The whole, contiguous tensor in the mapping. Its leaves are hashed when first touched (throws
  // Error(kBrokenFile)).
  TensorView tensor(int index) const;
  // Hashes every byte; checks that the ZIP directory and the index agree and that every byte is
  // accounted for.
  void verify_deep() const;
  struct Segment {
    std::string name;
    int64_t offset_bytes = 0;
    int64_t size_bytes = 0;
  };
  std::vector<Segment> segments() const;
  ~File();

 private:
  File();
  struct State;
  std::unique_ptr<State> state_;
  Manifest manifest_;
  std::string report_json_;
  std::string path_;
  int64_t size_bytes_ = 0;
};

// The semantic checks, apart from the file: every index, offset, stride inside its memory;
// operators known; steps' rules fit; definitions before uses; all chips of a plan list the same
// exchanges in the same order with matching sizes. Throws Error(kBrokenFile).
void check_manifest(const Manifest& manifest);

}  // namespace shardwright::pef
